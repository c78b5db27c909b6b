"""Flips and time of the served `encode` graph on one core.

In: a tokenizer, rows, the scale. Out: flips over a million encodings across batch sizes and
runtimes, the p99 of one item in ms, and items per second at batch 1,024.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.onnx_graph import write_graph
from export.semantic_id.measures import in_batches
from export.semantic_id.model import SemanticId
from export.sources.semantic_id import semantic_id_graphs

_ROWS = 333_334  # each coded at batch 1,024 in torch and ONNX Runtime, and at 64
_SINGLE = 20_000


def speed(
    model: SemanticId, rows: NDArray[np.float32], scale: float, told: Callable[[str], None]
) -> dict[str, Any]:
    """Measure. rows: unit float32 (n, D); told: the name of each of the three parts done."""
    import onnxruntime

    singles = round(_SINGLE * scale)
    random = np.random.default_rng(0)
    base = rows[random.integers(len(rows), size=round(_ROWS * scale))]
    noise = random.normal(size=base.shape).astype(np.float32)
    noise *= 10 ** random.uniform(-7, -1.5, (len(base), 1)).astype(np.float32)
    tried = base + np.where(np.arange(len(base))[:, None] % 4 == 0, 0, noise)
    tried = (tried / np.linalg.norm(tried, axis=1, keepdims=True)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "encode.onnx"
        write_graph(semantic_id_graphs(model)["encode"], file)
        session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])

    def coded(batch: int, part: NDArray[np.float32]) -> NDArray[np.int32]:
        found = [
            session.run(["codes"], {"features": part[i : i + batch]})[0]
            for i in range(0, len(part), batch)
        ]
        return np.concatenate(found)

    with torch.no_grad():
        torch_codes = in_batches(torch.from_numpy(tried), model).numpy()
    told("torch")
    start = time.perf_counter()
    large = coded(1024, tried)
    rate = len(tried) / (time.perf_counter() - start)
    flips = int((large != torch_codes).any(1).sum() + (coded(64, tried) != large).any(1).sum())
    told("batches")
    times = []
    for i in range(singles):
        start = time.perf_counter()
        one = session.run(["codes"], {"features": tried[i : i + 1]})[0]
        times.append(1000 * (time.perf_counter() - start))
        flips += int((one[0] != large[i]).any())
    told("single items")
    return {
        "encodings": 3 * len(tried) + singles,
        "flips": flips,
        "one_item_p99_ms": float(np.percentile(times, 99)),
        "one_item_p50_ms": float(np.percentile(times, 50)),
        "items_per_s_one_core": rate,
    }
