"""Wrong command lines: one line, exit code 2, and nothing started."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.up.options import is_loopback

ROOT = Path(__file__).parents[2]


def up(*arguments: str, keys: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin"} | ({"TESSERA_API_KEYS_FILE": str(keys)} if keys else {})
    command = [sys.executable, "-m", "serving", "up", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--creatives", "no/such/folder"], "no such folder"),
        (["--creatives", "pyproject.toml"], "no such folder"),
        (["--json", "no/such/folder/out.json"], "no such folder"),
        (["--json", "docs"], "expected a file"),
        (["--json", "/dev/null"], "expected a file"),
        (["--json", "n" * 300], "File name too long"),
        (["--creatives", "n" * 300], "File name too long"),
        (["--models", "pyproject.toml"], "expected a folder"),
        (["--host", "0.0.0.0"], "TESSERA_API_KEYS_FILE"),
        (["--host", "::1"], "IPv4"),
        (["--port", "0"], "1-65535"),
        (["--port", "70000"], "1-65535"),
        (["--port", "eight"], "invalid int value"),
        (["--port", "9000"], "both 9000"),
        (["--colour", "red"], "unrecognized arguments"),
        (["--redis", "redis://localhost", "--persist"], "--persist"),
        (["--redis", "http://localhost"], "unknown scheme 'http'"),
    ],
)
def test_a_wrong_argument_is_one_line_and_code_2(arguments: list[str], said: str) -> None:
    done = up(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_busy_port_is_named(busy_port: int) -> None:
    for flag in ("--port", "--grpc-port"):
        done = up(flag, str(busy_port))
        assert done.returncode == 2
        assert f"{flag} {busy_port}" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_broken_key_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text("{}\n")
    done = up(keys=path)
    assert done.returncode == 2
    assert "keys.jsonl:1" in done.stderr


def test_an_empty_folder_of_creatives_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    done = up("--creatives", str(tmp_path / "models"))
    assert done.returncode == 2
    assert "found neither" in done.stderr


def test_help_names_every_flag() -> None:
    done = up("--help")
    assert done.returncode == 0
    flags = [
        "redis",
        "creatives",
        "models",
        "host",
        "port",
        "grpc-port",
        "persist",
        "no-llm",
        "once",
        "json",
    ]
    assert all(f"--{flag}" in done.stdout for flag in flags)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("h", False)],
)
def test_loopback_hosts(host: str, local: bool) -> None:
    assert is_loopback(host) is local
