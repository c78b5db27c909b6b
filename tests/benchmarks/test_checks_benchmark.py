"""`python -m benchmarks checks` on tiny models: every part answers, and the line says so."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOUSE = Path(__file__).parents[2]
PARTS = ("overhead", "leaving", "injection", "cached")


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks", "checks", "--model", "tiny", "--scale", "0.03"]
    command += ["--only", *PARTS]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=HOUSE)
    assert ran.returncode == 0, ran.stderr[-3000:]
    line = json.loads(ran.stdout.splitlines()[-1])
    assert line["environment"]["seed"] == 1
    found: dict[str, Any] = line["parts"]
    return found


def test_the_subjects_take_turns_on_one_engine(parts: dict[str, Any]) -> None:
    found = parts["overhead"]
    assert found["subjects"].keys() == {"engine", "bridge", "judge"}
    for subject in found["subjects"].values():
        assert subject["per_cpu_s"] > 0
        assert 0 < subject["low"] <= subject["of_engine"] <= subject["high"]
    # What all ads share fills whole blocks, so that none of it is computed twice.
    assert found["policy_tokens_cached"]["value"] >= 0.97
    assert found["first_of_steady"]["value"] > 0


def test_callers_that_go_away_leave_nothing_in_the_engine(parts: dict[str, Any]) -> None:
    found = parts["leaving"]
    assert found["reads"] == 3_000
    assert found["cancelled"] > 0
    assert found["leaked"] == 0


def test_attacks_move_hardly_more_labels_than_padding(parts: dict[str, Any]) -> None:
    found = parts["injection"]
    assert found["pairs"] == 40
    rows = {row["pairs"]: row for row in found["changed"]}
    assert rows.keys() == {"all", "relevance", "title", "text", "query"}
    # Forty pairs of eleven labels are too few for the bar of one point; they see a breach.
    assert found["excess"] <= 0.05


def test_identical_checks_are_one_read_and_stored_ones_none(parts: dict[str, Any]) -> None:
    found = parts["cached"]
    assert found["identical"] == {"checks": 64, "engine_reads": 1}
    assert {row["route"] for row in found["routes"]} == {"cached", "empty"}
