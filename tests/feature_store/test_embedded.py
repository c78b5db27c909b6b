"""The embedded server: its keeper hears of it at once, and nothing is left of a failure."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from feature_store import FeatureStore
from feature_store.embedded import EmbeddedValkey
from feature_store.errors import UnavailableError


def test_the_process_is_told_before_the_server_answers() -> None:
    told: list[int] = []

    class GivenUpError(Exception):
        pass

    def give_up(pid: int) -> None:
        told.append(pid)
        assert psutil.Process(pid).is_running()
        raise GivenUpError

    with pytest.raises(GivenUpError):
        EmbeddedValkey(started=give_up)
    assert len(told) == 1
    assert not psutil.pid_exists(told[0])


def test_a_relative_folder_keeps_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `up --persist` gives one; the server changes into it before it opens its log."""
    monkeypatch.chdir(tmp_path)
    with EmbeddedValkey("var/store") as server, FeatureStore.connect(server.url) as store:
        store.write([7], [[1, 2, 3, 4, 5, 6]])
    assert (tmp_path / "var/store/server.log").is_file()
    with EmbeddedValkey("var/store") as server, FeatureStore.connect(server.url) as store:
        assert store.lookup([7]).codes[0].tolist() == [1, 2, 3, 4, 5, 6]


def test_each_start_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    with EmbeddedValkey(tmp_path, started=told.append) as server:
        assert told == [server.pid]
        server.close()
        server.start()
        assert told[1:] == [server.pid]


OWNER = """
import time
from feature_store.embedded import EmbeddedValkey

with EmbeddedValkey() as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


def test_it_ends_with_an_owner_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        assert server.is_running()
        owner.kill()
    _, alive = psutil.wait_procs([server], timeout=60)
    assert alive == []


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"needs a folder of its own.*file"):
        EmbeddedValkey(tmp_path / "file" / "store")
