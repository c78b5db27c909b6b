"""Sessions: one graph of a bundle, opened in a runtime and ready to compute.

In: a bundle whose files are verified, and which device to use. Out: named arrays for named arrays.
The provider is chosen from what the machine has and is written to the log; asking for a GPU where
there is none is an error, never a silent run on the CPU. Threads are planned from what the
container may use, not from what the host has.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from export import Bundle
from export.manifest import Graph
from serving.cores import available_cores
from serving.errors import ConfigurationError
from serving.providers import Device, choose_provider, gpu_present, with_options
from serving.tensorrt_session import open_plan
from serving.tensors import Tensors, batch_axis

# Any dynamic axis but the batch is this long in warm-up runs.
WARM_AXIS = 16
# Warm-up runs each batch size this often, only once when that has taken WARM_S seconds.
WARM_TURNS, WARM_S = 8, 2.0
# Batches of more rows than this are for models that compute so many in BRIEF_S seconds: whoever
# arrives meanwhile waits for the whole batch.
USUAL_ROWS, BRIEF_S = 32, 0.02

logger = logging.getLogger("tessera.session")


class Session(Protocol):
    """One graph in one runtime; `run` blocks, so it belongs in a thread.

    threads: that compute on the CPU; 0 where a device does.
    """

    graph: Graph
    provider: str
    threads: int

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """All outputs by name. Raises RefusedInputsError."""

    def close(self) -> None:
        """Free the weights; `run` must not be called again."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """How sessions are opened.

    threads: of one run; None: all cores that the container may use. rows: of the largest batch
    that TensorRT builds for. engines: folder in which it keeps what it has built; None: nowhere.
    """

    device: Device = "auto"
    threads: int | None = None
    rows: int = USUAL_ROWS
    engines: Path | None = None


def open_session(bundle: Bundle, graph: str, runtime: Runtime | None = None) -> Session:
    """Open one graph of a verified bundle.

    Raises ConfigurationError: no such device, the extra is missing, or the file cannot be loaded.
    """
    runtime = runtime or Runtime()
    if runtime.device != "cpu" and (planned := open_plan(bundle, graph)) is not None:
        return planned
    try:
        import onnxruntime

        from serving.graph_session import GraphSession
    except ImportError as error:
        raise ConfigurationError(
            "sessions need ONNX Runtime: pip install tessera[cpu] or tessera[gpu]"
        ) from error
    available, gpu = onnxruntime.get_available_providers(), gpu_present()
    provider = choose_provider(runtime.device, available, gpu=gpu)
    threads = runtime.threads or available_cores()
    signature = bundle.manifest.graphs[graph]
    engines = None if runtime.engines is None else runtime.engines / bundle.bundle_hash
    providers = with_options(provider, signature, rows=runtime.rows, engines=engines)
    session = GraphSession(bundle.path(graph), signature, providers, threads)
    fields = {
        "model": bundle.manifest.name,
        "version": bundle.manifest.version,
        "graph": graph,
        "provider": session.provider,
        "threads": threads,
    }
    logger.info("session opened", extra={"fields": fields | {"device": runtime.device}})
    return session


def warm_up(session: Session, buckets: Sequence[int]) -> dict[int, float]:
    """Run every batch size on zeros, smallest first; seconds of the fastest run of each.

    Buffers, kernels and lazily made code are in place afterwards. The sizes take turns, so that
    what else the machine does meanwhile falls on all of them alike. Sizes over USUAL_ROWS are left
    out once one of them took longer than BRIEF_S. Graphs without a batch axis are run as bucket 1.
    """
    axis = batch_axis(session.graph)
    sizes = list(buckets) if axis is not None else [1]
    seconds: dict[int, float] = {}
    _timed(session, axis, sizes[0])  # the very first run makes what all of them share
    begun = time.perf_counter()
    for _ in range(WARM_TURNS):
        for size in sizes:
            taken = min(_timed(session, axis, size), seconds.get(size, math.inf))
            seconds[size] = taken
            if size >= USUAL_ROWS and taken > BRIEF_S:
                break
        sizes = list(seconds)
        if time.perf_counter() - begun > WARM_S:
            break
    return seconds


def _timed(session: Session, axis: str | None, rows: int) -> float:
    """Seconds of one run on zeros; on the CPU what it worked, shared by its threads."""
    inputs = {
        spec.name: np.zeros(
            [_warm_size(size, axis, rows) for size in spec.shape], np.dtype(spec.dtype)
        )
        for spec in session.graph.inputs
    }
    started, worked = time.perf_counter(), time.process_time()
    session.run(inputs)
    seconds, work = time.perf_counter() - started, time.process_time() - worked
    # Of long runs none is left undisturbed by a busy machine, of short ones some are: by the clock
    # a start among 15 busy processes took batches of 24 for the fastest where 1,024 were.
    return min(seconds, work / session.threads) if session.threads else seconds


def warm_cost(session: Session) -> int:
    """What a row of the warm-up's inputs costs: the product of its open axes, as requests count."""
    axis = batch_axis(session.graph)
    sizes = (size for spec in session.graph.inputs for size in spec.shape)
    opened = {size for size in sizes if isinstance(size, str) and size != axis}
    return int(WARM_AXIS ** len(opened))


def _warm_size(size: int | str, axis: str | None, bucket: int) -> int:
    if isinstance(size, int):
        return size
    return bucket if size == axis else WARM_AXIS
