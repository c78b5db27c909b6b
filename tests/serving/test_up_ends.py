"""How `up` ends: by itself, by signals at any moment, and when its store is killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis

from feature_store.ports import free_port
from serving.errors import ConfigurationError
from serving.up.locking import locked
from tests.serving.support import start_up, write_creatives

END_S = 120.0


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough creatives that ingest takes seconds."""
    return write_creatives(tmp_path_factory.mktemp("many"), good=1_500)


def until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + END_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            process.wait(END_S)
            pytest.fail(f"`up` ended (code {process.returncode}) or hung:\n{log.read_text()}")
        time.sleep(0.02)


def valkey_of(process: "subprocess.Popen[bytes]") -> psutil.Process | None:
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # one that has just ended
            if "valkey-server" in " ".join(child.cmdline()):
                return child
    return None


def arguments(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def stored(process: "subprocess.Popen[bytes]") -> int:
    """How many keys the embedded server of `up` holds now."""
    server = valkey_of(process)
    listening = server.net_connections() if server is not None else []
    if not listening:
        return 0
    try:
        with redis.Redis(port=listening[0].laddr.port) as client:
            return int(client.dbsize())
    except redis.ConnectionError:
        return 0


def family(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def remove_kept_logs(said: str) -> None:
    """A failed `up` keeps Ray's logs and says where."""
    found = re.search(r"\(logs: (/tmp/tessera-\w+)\)", said)
    assert found is not None
    assert Path(found[1], "session_latest", "logs").is_dir()
    shutil.rmtree(found[1])


def assert_nothing_is_left(before: list[psutil.Process], port: int) -> None:
    _, alive = psutil.wait_procs(before, timeout=10)
    assert [p.name() for p in alive] == []
    assert not any(
        c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in psutil.net_connections()
    )


def test_a_killed_store_is_said_and_nothing_is_left(tmp_path: Path, many: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    arguments = ("--creatives", str(many), "--port", str(port), "--grpc-port", str(free_port()))
    ready = tmp_path / "out.json"
    process = start_up("--once", "--json", str(ready), *arguments, log=log)
    until(lambda: stored(process) > 100, process, log)
    started = family(process)
    server = valkey_of(process)
    assert server is not None
    server.kill()
    assert process.wait(END_S) == 1
    said = log.read_text()
    assert "the embedded Valkey has ended" in said
    assert "creatives were stored before" in said
    assert "Traceback" not in said
    assert not ready.exists()
    remove_kept_logs(said)
    assert_nothing_is_left(started, port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_ingest_ends_everything(
    tmp_path: Path, many: Path, number: signal.Signals
) -> None:
    port, log = free_port(), tmp_path / "log"
    arguments = ("--creatives", str(many), "--port", str(port), "--grpc-port", str(free_port()))
    process = start_up(*arguments, log=log)
    until(lambda: stored(process) > 100, process, log)
    started = family(process)
    os.killpg(process.pid, number)  # as a terminal does: to the whole group
    assert process.wait(END_S) == 130
    assert "Traceback" not in log.read_text()
    assert_nothing_is_left(started, port)


def test_nothing_outlives_an_up_that_is_killed(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    few = write_creatives(tmp_path / "few", good=6)
    ports = ("--port", str(port), "--grpc-port", str(free_port()))
    process = start_up("--no-llm", "--creatives", str(few), *ports, log=log)
    until(lambda: stored(process) > 0, process, log)
    started = family(process)
    assert any("haproxy" in " ".join(arguments(p)) for p in started)
    said = "".join(argument for p in started for argument in arguments(p))
    folders = set(re.findall(r"/tmp/tessera-\w+", said))
    process.kill()
    assert process.wait(END_S) == -signal.SIGKILL
    _, alive = psutil.wait_procs(started, timeout=90)
    assert [p.name() for p in alive] == []
    assert_nothing_is_left(started, port)
    for folder in folders:  # a killed `up` leaves its logs
        shutil.rmtree(folder)


def test_two_that_persist_do_not_share_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "store"):
        holder = "from pathlib import Path; import sys; from serving.up.locking import locked\n"
        holder += "with locked(Path(sys.argv[1])): pass"
        command = [sys.executable, "-c", holder, str(tmp_path / "store")]
        second = subprocess.run(command, check=False, capture_output=True, text=True)
        assert second.returncode == 1
        assert "another `up` keeps its store in" in second.stderr
    with locked(tmp_path / "store"):  # free again
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be written to"):
        locked(tmp_path / "file" / "store").__enter__()


HOLDER = """
import subprocess, sys, time
from pathlib import Path
from feature_store.watching import Watch
from serving.up.locking import locked

with locked(Path(sys.argv[1])) as lock, Watch([lock]) as watch:
    sleeper = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
    watch.pid(sleeper.pid)
    print(sleeper.pid, flush=True)
    time.sleep(600)
"""


def test_the_lock_is_free_once_all_that_was_started_has_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        sleeper = psutil.Process(int(holder.stdout.readline()))
        with pytest.raises(ConfigurationError), locked(tmp_path):
            pass
        holder.kill()
        deadline, free = time.monotonic() + 30, False
        while not free and time.monotonic() < deadline:
            with suppress(ConfigurationError), locked(tmp_path):
                free = True
                assert not sleeper.is_running() or sleeper.status() == psutil.STATUS_ZOMBIE
    assert free


def test_a_store_killed_after_the_summary_ends_up_too(tmp_path: Path) -> None:
    ready, log = tmp_path / "out.json", tmp_path / "log"
    few = write_creatives(tmp_path / "few", good=6)
    ports = ("--port", str(free_port()), "--grpc-port", str(free_port()))
    process = start_up("--no-llm", "--creatives", str(few), "--json", str(ready), *ports, log=log)
    until(lambda: "Ready" in log.read_text(), process, log)
    started, server = family(process), valkey_of(process)
    assert server is not None
    server.kill()
    assert process.wait(END_S) == 1
    assert "the embedded Valkey has ended" in log.read_text()
    remove_kept_logs(log.read_text())
    assert_nothing_is_left(started, int(ports[1]))


def test_once_ends_by_itself_and_a_named_store_keeps_the_ads(
    tmp_path: Path, valkey_url: str
) -> None:
    creatives = tmp_path / "ads"
    creatives.mkdir()
    lines = [{"ad_id": i, "title": f"ad {i}"} for i in range(1, 6)] + [{"ad_id": 0}]
    (creatives / "ads.jsonl").write_text("\n".join(map(json.dumps, lines)))
    ready, log = tmp_path / "out.json", tmp_path / "log"
    ports = ("--port", str(free_port()), "--grpc-port", str(free_port()))
    process = start_up(
        *(
            "--no-llm",
            "--once",
            "--redis",
            valkey_url,
            "--json",
            str(ready),
            "--creatives",
            str(creatives),
        ),
        *ports,
        log=log,
    )
    assert process.wait(END_S) == 0, log.read_text()
    report = json.loads(ready.read_text())
    assert report["stages"]["lookup"]["count"] == 5
    assert [p["source"] for p in report["problems"]] == ["ads.jsonl:6"]
    with redis.Redis.from_url(valkey_url) as client:
        assert client.dbsize() >= 5
    said = log.read_text()
    assert said.count("curl ") == 3
    assert "p99" in said
