"""`python -m benchmarks checks` on tiny models: every part answers, and the line says so."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOUSE = Path(__file__).parents[2]
PARTS = ("overhead", "leaving", "injection", "cached")


def measured(*arguments: str) -> dict[str, Any]:
    """The parts of the line that a run ends with."""
    command = [sys.executable, "-m", "benchmarks", "checks", "--model", "tiny", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=HOUSE)
    assert ran.returncode == 0, ran.stderr[-3000:]
    line = json.loads(ran.stdout.splitlines()[-1])
    assert line["environment"]["seed"] == 1
    found: dict[str, Any] = line["parts"]
    return found


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return measured("--scale", "0.03", "--only", *PARTS)


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """On the reference models, which are made if this is the first who needs them."""
    return measured("--scale", "0.005", "--only", "stream", "soft_tokens")


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
    assert found["reads"] == 12_000
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


def test_a_stream_with_near_copies_is_audited_against_the_model(reference: dict[str, Any]) -> None:
    stream = reference["stream"]
    assert sum(stream["sources"].values()) == stream["checks"] == 1_500
    assert sum(row["creatives"] for row in stream["made_by"]) == stream["creatives_seen"]
    assert len(stream["streams"]) == 3
    # Every verdict was made once, and by the model no more often than by all together.
    assert stream["sources"]["cache"] >= stream["checks"] - 2 * stream["creatives_seen"]
    assert 0 < stream["llm_share"]["value"] <= stream["cache_alone"] + 0.05
    assert stream["floor_without_router"] <= stream["cache_alone"]
    for name in ("llm_share", "recall_kept", "disagreement"):
        figure = stream[name]
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"]
    assert stream["recall_kept"]["value"] > 0.5
    assert stream["apart_from_engine"]["ads"] == 64
    assert stream["apart_from_engine"]["median_log_odds"] < 0.1
    assert 0 <= stream["smuggled"]["let_through"] <= stream["smuggled"]["caught_by_model"]


def test_soft_tokens_take_turns_with_captions_in_their_place(reference: dict[str, Any]) -> None:
    found = reference["soft_tokens"]
    names = {row["image_as"] for row in found["accuracy"]}
    assert names == {"soft tokens", "own caption", "true caption", "true caption, cut"}
    assert all(row["accuracy"] > 0.5 for row in found["accuracy"])
    # A caption of a few tokens in place of eight: hardly less of a hundred is computed.
    assert 1 <= found["caption_tokens"] <= 12
    assert len(found["chosen"]) == 2
    assert 0.9 < found["length_ratio"] < 1.1
    assert found["throughput_ratio"]["value"] > 0
    kept = found["of_length_ratio"]
    assert 0 < kept["low"] <= kept["value"] <= kept["high"]
