"""Whom a watchdog ends, and whom it leaves alone."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feature_store import watchdog


@contextmanager
def sleeper(**variables: str) -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"], env=dict(os.environ) | variables) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_processes_that_name_the_folder_are_ended_and_visitors_are_not(tmp_path: Path) -> None:
    folder = str(tmp_path / "ray")
    with sleeper(SOCKETS=f"{folder}/h") as ours, sleeper(PWD=folder, OLDPWD=folder) as visitor:
        found = set(watchdog.named({}, {folder.encode()}))
        assert ours in found
        assert visitor not in found


def test_a_number_that_another_process_has_by_now_is_left_alone() -> None:
    with sleeper() as pid:
        began = watchdog.started(pid)
        assert began is not None
        assert set(watchdog.named({pid: began}, set())) == {pid}
        assert set(watchdog.named({pid: began - 1}, set())) == set()
        assert set(watchdog.named({pid: None}, set())) == set()
    assert watchdog.started(pid) is None
