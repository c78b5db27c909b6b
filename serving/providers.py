"""Which of ONNX Runtime's execution providers runs a graph, and with which options.

In: the device that was asked for, what the installed runtime has, and whether there is a GPU. Out:
providers in order of preference. Asking for what is not there is an error, never a silent run on
the CPU.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from export.manifest import Graph, TensorSpec
from serving.errors import ConfigurationError
from serving.tensors import batch_axis

# auto: a GPU if there is one. tensorrt: ONNX Runtime's TensorRT provider, over CUDA.
Device = Literal["auto", "cpu", "gpu", "tensorrt"]
Options = dict[str, str]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
DEVICES = Path("/dev")
CUDA_OPTIONS: Options = {
    # Buckets repeat: memory grows to what they need and no further.
    "arena_extend_strategy": "kSameAsRequested",
    # Every bucket is warmed before it serves; an exhaustive search a shape would take minutes.
    "cudnn_conv_algo_search": "HEURISTIC",
    "do_copy_in_default_stream": "1",
}
# Of an axis that is neither the batch nor fixed (tokens): shapes that TensorRT builds for.
PROFILE_AXIS = (1, 64, 512)


def gpu_present(devices: Path = DEVICES) -> bool:
    """Whether an NVIDIA device is visible here; a runtime built for CUDA proves nothing."""
    return any(devices.glob("nvidia[0-9]*"))


def choose_provider(device: Device, available: Sequence[str], *, gpu: bool) -> str:
    """The execution provider for `device`, of those that the installed runtime has.

    Raises ConfigurationError when a GPU is asked for and there is none.
    """
    if device == "cpu" or (device == "auto" and not (gpu and CUDA in available)):
        return CPU
    provider = TENSORRT if device == "tensorrt" else CUDA
    if provider not in available:
        raise ConfigurationError(
            f"device {device}: expected the provider {provider}, found {sorted(available)}; "
            "install the extra `gpu` (pip install tessera[gpu]) on a machine with a GPU, "
            "or ask for device cpu"
        )
    if not gpu:
        raise ConfigurationError(
            f"device {device}: expected an NVIDIA GPU, found no {DEVICES}/nvidia*; run where there "
            "is one, or ask for device cpu"
        )
    return provider


def with_options(
    provider: str, graph: Graph, *, rows: int, engines: Path | None
) -> list[tuple[str, Options]]:
    """The provider and what it leaves to others, each with its options.

    rows: of the largest batch. engines: folder that TensorRT keeps built engines in; None: it
    builds them anew at every start.
    """
    if provider == CPU:
        return [(CPU, {})]
    fallback: list[tuple[str, Options]] = [(CUDA, CUDA_OPTIONS), (CPU, {})]
    if provider == CUDA:
        return fallback
    return [(TENSORRT, tensorrt_options(graph, rows, engines)), *fallback]


def tensorrt_options(graph: Graph, rows: int, engines: Path | None) -> Options:
    """Options of the TensorRT provider: one profile over all shapes that will come.

    Without profiles of all open axes each new shape builds an engine anew, which takes minutes.
    Source: ONNX Runtime, TensorRT execution provider, "Explicit shape range".
    """
    batch = batch_axis(graph)
    options: Options = {"trt_builder_optimization_level": "3"}
    opened = [spec for spec in graph.inputs if any(isinstance(size, str) for size in spec.shape)]
    if opened:
        for place, kind in enumerate(("min", "opt", "max")):
            sizes = (1, max(1, rows // 2), rows)[place], PROFILE_AXIS[place]
            options[f"trt_profile_{kind}_shapes"] = ",".join(
                _profile(spec, batch, *sizes) for spec in opened
            )
    if engines is not None:
        # An engine is executable code: nobody else may write where it is read from.
        engines.mkdir(mode=0o700, parents=True, exist_ok=True)
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(engines),
        }
    return options


def _profile(spec: TensorSpec, batch: str | None, rows: int, axis: int) -> str:
    """`name:1x3x224x224`."""
    sizes = [s if isinstance(s, int) else rows if s == batch else axis for s in spec.shape]
    return f"{spec.name}:{'x'.join(map(str, sizes))}"
