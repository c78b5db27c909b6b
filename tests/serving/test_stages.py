"""What the main job measured, and the file that says that it is ready."""

import json
from pathlib import Path

from serving.up.stages import Outcome, Stage, write_atomically


def test_percentiles_are_in_milliseconds() -> None:
    stage = Stage.of(101, 2.0, [i / 1000 for i in range(101)])
    assert (stage.count, stage.seconds, stage.p50_ms, stage.p99_ms) == (101, 2.0, 50.0, 99.0)


def test_a_stage_without_requests_has_no_latency() -> None:
    assert Stage.of(0, 0.0, []) == Stage(0, 0.0, 0.0, 0.0)


def test_the_file_has_stages_and_versions_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    outcome = Outcome(
        stages={"ingest": Stage(3, 1.5, 10.0, 20.0)},
        versions={"active": "e1-s1"},
        served={"http": "http://127.0.0.1:1"},
        problems=(("a/b.jpg", "not an image"),),
    )
    write_atomically(path, outcome.as_json())
    found = json.loads(path.read_text())
    assert found["stages"] == {
        "ingest": {"count": 3, "seconds": 1.5, "p50_ms": 10.0, "p99_ms": 20.0}
    }
    assert found["versions"] == {"active": "e1-s1"}
    assert found["problems"] == [{"source": "a/b.jpg", "reason": "not an image"}]
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
