"""`python -m benchmarks models` on tiny models: a real Serve instance, every figure is there."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.commands import PARTS
from benchmarks.models.niceness import NICE, give_way
from benchmarks.models.peers import LOADS
from benchmarks.models.queueing import ideal_queue
from benchmarks.models.saturation import SUBJECTS

HOUSE = Path(__file__).parents[2]


def test_the_ideal_queue_takes_what_waits() -> None:
    service = {1: 1.0, 2: 1.5, 4: 2.0}
    alone = ideal_queue(np.array([0.0, 5.0]), service)
    np.testing.assert_allclose(alone, [1.0, 1.0])
    # Two come while the first is computed and go together; the sixth does not fit with the four.
    np.testing.assert_allclose(ideal_queue(np.array([0.0, 0.2, 0.4]), service), [1.0, 2.3, 2.1])
    crowd = ideal_queue(np.array([0.0, 0.1, 0.1, 0.1, 0.1, 0.1]), service)
    np.testing.assert_allclose(crowd, [1.0, 2.9, 2.9, 2.9, 2.9, 3.9])


def test_what_is_measured_gives_way_to_the_generator() -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    own = Path("/proc/self/autogroup")
    before = own.read_text() if own.exists() else ""
    try:
        give_way(process.pid)
        if own.exists():
            assert Path(f"/proc/{process.pid}/autogroup").read_text().endswith(f"nice {NICE}\n")
            assert own.read_text() == before
    finally:
        process.kill()
        process.wait()
    give_way(process.pid)  # who is gone needs not give way


def test_models_run_small_and_end_in_one_json_line() -> None:
    command = [sys.executable, "-m", "benchmarks", "models", "--size", "tiny", "--scale", "0.02"]
    command += ["--only", *(part for part in PARTS if part != "litserve")]  # needs a package index
    ran = subprocess.run(command, capture_output=True, text=True, timeout=550, cwd=HOUSE)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    for protocol in ("http", "grpc"):
        row = found["one_caller"][protocol]
        assert row["p50_ms"]["tessera"] > row["p50_ms"]["bare session"] > 0
        assert row["above_ms"]["low"] <= row["above_ms"]["value"] <= row["above_ms"]["high"]
    assert set(found["saturation"]["models"]) == set(SUBJECTS)
    for row in found["saturation"]["models"].values():
        assert row["rows_per_s"]["bare"] > 0
        assert row["rows_per_s"]["served"] > 0
    for kind in ("poisson", "overload"):
        assert found["arrivals"][kind]["outcomes"]["ok"] > 0
        assert found["arrivals"][kind]["generator_late_s"] >= 0
    beside = found["serve_batch"]
    assert [row["load"] for row in beside["loads"]] == list(LOADS)
    assert set(beside["best_goodput"]) == {"tessera", "serve.batch"}
    rolled = found["rollout"]
    assert rolled["outcomes"]["ok"] > 0
    assert rolled["n"] > 0
