"""`python -m benchmarks int8`, small: what its line says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def test_the_line_has_the_gain_with_its_interval_and_the_cosine(tmp_path: Path) -> None:
    photos = tmp_path / "photos" / "shoes"
    photos.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).resize((80, 90)).save(photos / f"{number}.png")
    command = [sys.executable, "-m", "benchmarks", "int8", "--size", "tiny", "--scale", "0.2"]
    command += ["--photos", str(photos.parent)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    found = json.loads(done.stdout)
    assert found["gain"]["bar"] == 2.5
    assert 0 < found["gain"]["low"] <= found["gain"]["high"]
    assert found["cosine"]["lowest"] >= 0.999
    assert found["inputs"].endswith("rows of photos")
    assert found["nodes"]["method"] == "dynamic"
    assert set(found["ms_an_image"]) == {"fp32", "int8", "fp32 again"}
