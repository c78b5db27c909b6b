"""The lookup benchmark and its counters, run small: the same code, real servers."""

import json
from pathlib import Path

import pytest

from benchmarks import counters
from benchmarks.__main__ import main
from benchmarks.errors import ExpectationError

EXPECTATIONS = Path(counters.__file__).parent / "expectations.json"


def test_lookup_runs_small_and_ends_in_one_json_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["lookup", "--scale", "0.01", "--plot", str(tmp_path)]) == 0
    out = capsys.readouterr().out.strip().split("\n")
    result = json.loads(out[-1])
    assert len(out) == 1
    assert result["benchmark"] == "lookup"
    assert result["environment"]["seed"] == 1
    assert "--feast" in result["feast"]["left_out"]
    assert (tmp_path / "lookup.png").read_bytes().startswith(b"\x89PNG")
    for size in ("100", "500", "1000"):
        row = result["sizes"][size]
        assert row["p50_us"]["lookup"] > 0
        assert row["p50_ratio"]["low"] <= row["p50_ratio"]["value"] <= row["p50_ratio"]["high"]
        assert row["p50_verdict"] in ("met", "not met", "inconclusive")


def test_counters_are_as_committed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["counters", "--check", str(EXPECTATIONS)]) == 0
    found = json.loads(capsys.readouterr().out)["lookup"]
    assert all(row["round_trips"] == 1 for row in found.values())
    found["no ids"]["bytes_sent"] += 1
    changed = tmp_path / "expectations.json"
    changed.write_text(json.dumps({"lookup": found}))
    with pytest.raises(ExpectationError, match="no ids"):
        counters.check(json.loads(EXPECTATIONS.read_text())["lookup"], changed)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["lookup", "--scale", "0"],
        ["lookup", "--scale", "much"],
        ["counters", "--check", "no/such/file"],
        ["serve", "--url", "localhost:8000"],
    ],
)
def test_wrong_arguments_end_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
