"""Opening a bundle whose files were hashed once: milliseconds, and no torch.

In: a scale. Out: what hashing costs the first time, and what opening costs after it, here and as
the first thing of a new process. The bundle is of random bytes, as large as a ViT-B in fp32 and
with as many small files as a language model has: nothing but its size matters here.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from export import Repository
from export.bundle import Bundle
from export.manifest import Graph, Manifest, Source, TensorSpec

from . import report
from .errors import InvalidRunError

BAR_MS = 50.0
NAME = "tower"
BYTES, SMALL_FILES = 350_000_000, 12
OPENS, PROCESSES = 200, 10
_SETTLING_S = 10.0
_CHILD = """
import json, sys, time
begun = time.perf_counter()
from export.manifest import Manifest
from export.repository import Repository
imported = time.perf_counter()
Repository(sys.argv[1]).open(sys.argv[2])
opened = time.perf_counter()
heavy = {"torch", "onnx", "onnxruntime", "transformers", "numpy"} & set(sys.modules)
found = {"import_ms": imported - begun, "open_ms": opened - imported, "heavy": sorted(heavy)}
print(json.dumps(found))
"""


def run(scale: float, seed: int) -> dict[str, Any]:
    """Measure. Raises InvalidRunError where hashes are not remembered."""
    with TemporaryDirectory(prefix="bundles-") as scratch:
        root = Path(scratch) / "repository"
        size = _publish(root, Path(scratch) / "draft", scale, seed)
        repository = Repository(root)
        hashing_ms = _open_ms(repository, full=True)
        _remember(repository, root)
        opens = [_open_ms(repository) for _ in range(max(round(OPENS * scale), 10))]
        fresh = [_fresh(root) for _ in range(max(round(PROCESSES * scale), 2))]
    heavy = sorted({name for one in fresh for name in one["heavy"]})
    worst_ms = max(one["open_ms"] for one in fresh)
    p99_ms = float(np.quantile(opens, 0.99))
    found: dict[str, Any] = {
        "bytes": size,
        "files": SMALL_FILES + 1,
        "hashing_ms": hashing_ms,
        "open_ms": {"median": float(np.median(opens)), "p99": p99_ms, "worst": max(opens)},
        "new_process_ms": {
            "import": float(np.median([one["import_ms"] for one in fresh])),
            "open": float(np.median([one["open_ms"] for one in fresh])),
            "worst_open": worst_ms,
        },
        "heavy_imports": heavy,
        "bar_ms": BAR_MS,
        "verdict": "met" if max(p99_ms, worst_ms) < BAR_MS and not heavy else "not met",
    }
    report.table("opening, ms", [{"hashed now": hashing_ms, **found["open_ms"]}])
    report.table("a new process, ms", [found["new_process_ms"]])
    report.say(f"bar {BAR_MS:.0f} ms: {found['verdict']}; heavy imports: {heavy or 'none'}")
    return found


def _publish(root: Path, draft: Path, scale: float, seed: int) -> int:
    """Bytes of what was published."""
    random = np.random.default_rng(seed)
    draft.mkdir()
    (draft / "model.onnx").write_bytes(random.bytes(round(BYTES * scale)))
    for number in range(SMALL_FILES):
        (draft / f"part-{number}.json").write_bytes(random.bytes(1000))
    tensors = [(TensorSpec(name, "float32", ("batch", 4)),) for name in ("x", "y")]
    graphs = {"model": Graph("model.onnx", *tensors)}
    manifest = Manifest(NAME, "image_encoder", "fp32", graphs, Source("random", "sha256:00"))
    published = Repository(root).publish(Bundle.draft(draft, manifest))
    return sum(entry.bytes for entry in published.manifest.files.values())


def _remember(repository: Repository, root: Path) -> None:
    """Files that were just written are not remembered: open until they are."""
    memory, deadline = root / ".hashes" / NAME / "1.json", time.monotonic() + _SETTLING_S
    while not memory.exists() or len(json.loads(memory.read_bytes())) <= SMALL_FILES:
        if time.monotonic() > deadline:
            raise InvalidRunError(f"{memory}: no hash was remembered in {_SETTLING_S:.0f} s")
        repository.open(NAME)


def _open_ms(repository: Repository, *, full: bool = False) -> float:
    begun = time.perf_counter()
    repository.open(NAME, full=full)
    return (time.perf_counter() - begun) * 1000


def _fresh(root: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", _CHILD, str(root), NAME]
    done = subprocess.run(command, check=True, capture_output=True, timeout=120)
    found: dict[str, Any] = json.loads(done.stdout)
    return {name: value if name == "heavy" else value * 1000 for name, value in found.items()}
