"""What a store costs besides latency, run small: the same code, real servers."""

import json
import shutil

import pytest

from benchmarks.__main__ import main


def result(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main([*arguments]) == 0
    out = capsys.readouterr().out.strip().split("\n")
    assert len(out) == 1
    found: dict[str, object] = json.loads(out[0])
    assert found["benchmark"] == arguments[0]
    return found


def test_growth(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, "growth", "--scale", "0.005")
    assert set(found["stores"]) == {"near cache", "no near cache"}
    for store in found["stores"].values():
        assert store["lookups"] == 5000
        grown = store["last_over_first"]
        assert 0 < grown["low"] <= grown["value"] <= grown["high"]
        assert store["rss_bytes_a_million"]["verdict"] in ("met", "not met")


def test_memory(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, "memory", "--scale", "0.01")
    measured = [row for row in found["combinations"] if "left_out" not in row]
    assert {row["ids"] for row in measured} == {"dense", "random 53 bits"}
    assert {row["server"] for row in measured} >= {"valkey"}
    for row in measured:
        assert 24 < row["bytes_a_record"] < 200
        assert row["server_us_500_ids"] > row["server_us_an_id"] > 0
    for row in found["combinations"]:
        if "left_out" in row:
            assert shutil.which("redis-server") is None
    assert found["plan"]["default"]["bytes_a_record"]["measured"] > 24


def test_writing(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, "writing", "--scale", "0.02")
    for name in ("arrays", "parquet"):
        row = found["bulk"][name]
        assert row["records_per_s"]["value"] > 0
        assert row["client_us_a_record"] > 0
        assert row["server_us_a_record"] > 0
    readers = found["readers"]
    assert readers["n_each"] >= 24
    for row in readers["beside"].values():
        assert row["loader_records_per_s"] > 0
        for name in ("p50", "p99"):
            assert row[f"{name}_us"]["alone"] > 0
            assert row[f"{name}_ratio"]["verdict"] in ("met", "not met", "inconclusive")
    removal = found["removal"]
    assert removal["removal_s"]["value"] > 0
    assert removal["n"] == 0 or removal["p99_us"]["beside"] > 0
