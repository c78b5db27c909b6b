"""`python -m benchmarks checks` on a tiny model: every subject answers, and the line says so."""

import json
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).parents[2]


def test_the_subjects_take_turns_on_one_engine() -> None:
    command = [sys.executable, "-m", "benchmarks", "checks", "--model", "tiny", "--scale", "0.1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=HOUSE)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["subjects"].keys() == {"engine", "bridge", "judge"}
    for subject in found["subjects"].values():
        assert subject["per_cpu_s"] > 0
        assert 0 < subject["low"] <= subject["of_engine"] <= subject["high"]
    # The prompts share their prefix, so a good part of their tokens is never computed.
    assert found["prefix_cache_hits"] > 0.3
    assert found["environment"]["seed"] == 1
