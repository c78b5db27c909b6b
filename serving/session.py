"""Sessions: one graph of a bundle, opened in a runtime and ready to compute.

In: a bundle whose files are verified, and which device to use. Out: named arrays for named arrays.
The provider is chosen from what the machine has and is written to the log; asking for a GPU where
there is none is an error, never a silent run on the CPU. Threads are planned from what the
container may use, not from what the host has.
"""

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from export import Bundle
from export.manifest import Graph
from serving.errors import ConfigurationError, InvalidRequestError

Tensors = dict[str, NDArray[np.generic]]
Device = Literal["auto", "cpu", "gpu"]

CGROUP = Path("/sys/fs/cgroup")
# Any dynamic axis but the batch is this long in warm-up runs.
WARM_AXIS = 16
# Warm-up runs each batch size this often, fewer times when it has taken WARM_S seconds.
WARM_TURNS, MIN_WARM_TURNS, WARM_S = 8, 2, 2.0

logger = logging.getLogger("tessera.session")


class RefusedInputsError(InvalidRequestError):
    """The runtime computed nothing because of the values it was given (an index out of range)."""

    slug, title = "refused-inputs", "The model cannot compute these inputs"


class Session(Protocol):
    """One graph in one runtime; `run` blocks, so it belongs in a thread."""

    graph: Graph
    provider: str

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """All outputs by name. Raises RefusedInputsError."""

    def close(self) -> None:
        """Free the weights; `run` must not be called again."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """How sessions are opened. threads: of one run; None: all cores that the container may use."""

    device: Device = "auto"
    threads: int | None = None


def available_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: its CPU affinity, cut by the cgroup's quota; at least 1."""
    cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()  # cgroup v2
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()  # cgroup v1
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return int(cores)
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        cores = min(cores, int(quota) / int(period))
    return max(1, math.floor(cores))


def choose_provider(device: Device, available: Sequence[str]) -> str:
    """The execution provider for `device` among those the installed runtime has.

    Raises ConfigurationError when a GPU is asked for and there is none.
    """
    gpu = "CUDAExecutionProvider"
    if device != "cpu" and gpu in available:
        return gpu
    if device == "gpu":
        raise ConfigurationError(
            f"device gpu: expected the provider {gpu}, found {sorted(available)}; "
            "install the extra `gpu` (pip install tessera[gpu]) on a machine with a GPU, "
            "or ask for device cpu"
        )
    return "CPUExecutionProvider"


def open_session(bundle: Bundle, graph: str, runtime: Runtime | None = None) -> Session:
    """Open one graph of a verified bundle.

    Raises ConfigurationError: no such device, the extra is missing, or the file cannot be loaded.
    """
    runtime = runtime or Runtime()
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError(
            "sessions need ONNX Runtime: pip install tessera[cpu] or tessera[gpu]"
        ) from error
    provider = choose_provider(runtime.device, onnxruntime.get_available_providers())
    threads = runtime.threads or available_cores()
    session = OnnxSession(bundle.path(graph), bundle.manifest.graphs[graph], provider, threads)
    logger.info(
        "session opened",
        extra={
            "fields": {
                "model": bundle.manifest.name,
                "version": bundle.manifest.version,
                "graph": graph,
                "provider": provider,
                "threads": threads,
            }
        },
    )
    return session


class OnnxSession:
    """A graph in ONNX Runtime."""

    def __init__(self, path: Path, graph: Graph, provider: str, threads: int) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Idle threads that spin take the cores of everything else on the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self._refusals = (
            state.Fail,
            state.InvalidArgument,
            state.RuntimeException,
            state.NotImplemented,
        )
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=[provider]
            )
        except (*self._refusals, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile) as e:
            raise ConfigurationError(f"{path}: ONNX Runtime cannot load it: {e}") from e
        found = self._session.get_providers()
        if provider not in found:
            raise ConfigurationError(f"{path}: expected {provider}, ONNX Runtime gave {found}")
        self.graph = graph
        self.provider = provider
        self._outputs = [spec.name for spec in graph.outputs]

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        try:
            outputs = self._session.run(self._outputs, dict(inputs))
        except self._refusals as error:
            raise RefusedInputsError(f"the model could not compute: {error}") from error
        return dict(zip(self._outputs, outputs, strict=True))

    def close(self) -> None:
        del self._session


def batch_axis(graph: Graph) -> str | None:
    """The named axis that leads every input and output; None: rows cannot be batched."""
    leading = {spec.shape[0] if spec.shape else None for spec in (*graph.inputs, *graph.outputs)}
    axis = leading.pop() if len(leading) == 1 else None
    return axis if isinstance(axis, str) else None


def warm_up(session: Session, buckets: Sequence[int]) -> dict[int, float]:
    """Run every batch size on zeros; seconds of the fastest run of each.

    Buffers, kernels and lazily made code are in place afterwards. The sizes take turns, so that
    what else the machine does meanwhile falls on all of them alike. Graphs without a batch axis
    are run as bucket 1.
    """
    axis = batch_axis(session.graph)
    seconds: dict[int, float] = {}
    begun = time.perf_counter()
    for turn in range(WARM_TURNS):
        if turn >= MIN_WARM_TURNS and time.perf_counter() - begun > WARM_S:
            break
        for bucket in buckets if axis is not None else (1,):
            inputs = {
                spec.name: np.zeros(
                    [_warm_size(size, axis, bucket) for size in spec.shape], np.dtype(spec.dtype)
                )
                for spec in session.graph.inputs
            }
            started = time.perf_counter()
            session.run(inputs)
            taken = time.perf_counter() - started
            seconds[bucket] = min(taken, seconds.get(bucket, taken))
    return seconds


def _warm_size(size: int | str, axis: str | None, bucket: int) -> int:
    if isinstance(size, int):
        return size
    return bucket if size == axis else WARM_AXIS
