"""`python -m benchmarks bundles`, small: what its line says."""

import json

import pytest

from benchmarks.__main__ import main


def test_the_line_says_what_opening_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundles", "--scale", "0.01"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["bytes"] == 3_500_000 + 12_000
    assert found["files"] == 13
    assert found["heavy_imports"] == []
    # Not how fast it is: a machine that computes something else is no wrong answer.
    assert 0 < found["open_ms"]["median"] <= found["open_ms"]["p99"] <= found["open_ms"]["worst"]
    assert 0 < found["new_process_ms"]["open"] <= found["new_process_ms"]["worst_open"]
    assert found["bar_ms"] == 50
    assert found["verdict"] in ("met", "not met")
