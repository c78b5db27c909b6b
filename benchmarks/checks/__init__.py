"""What checks cost above the raw engine, and what they are worth: `python -m benchmarks checks`.

In: parts of it. Out: their figures, by part. Costs are measured on a randomly initialised Qwen3
that is made for the run, answers on the reference model. Several parts run one after the other in
processes of their own, since an engine keeps what it has taken.
"""

import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .. import random_llm
from ..errors import InvalidRunError

LONGEST_S = 3_600


def run(parts: list[str], model: str, scale: float, seed: int) -> dict[str, Any]:
    """Measure. Raises InvalidRunError when a part does not end well."""
    one = _here if len(parts) == 1 or model == "tiny" else _apart
    return {"parts": {part: one(part, model, scale, seed) for part in parts}}


def _here(part: str, model: str, scale: float, seed: int) -> Any:
    size = random_llm.TINY if model == "tiny" else random_llm.MEDIUM
    room: Any = importlib.import_module(f".{part}", __package__)
    with tempfile.TemporaryDirectory() as folder:
        return room.run(Path(folder), size, scale, seed)


def _apart(part: str, model: str, scale: float, seed: int) -> Any:
    command = [sys.executable, "-m", "benchmarks", "checks", "--only", part, "--model", model]
    command += ["--scale", str(scale), "--seed", str(seed)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LONGEST_S)
    if ran.returncode:
        raise InvalidRunError(f"checks, {part}: ended with exit code {ran.returncode}")
    return json.loads(ran.stdout.splitlines()[-1])["parts"][part]
