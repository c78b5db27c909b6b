"""From a bundle to TensorRT plans, on the machine whose GPU will serve them.

In: a verified bundle, and the sizes of each dynamic axis. Out: `<graph>...plan` files and their
tags (`export.tensorrt_tag`). Written for TensorRT 11, where networks are strongly typed: every
precision is the graph's own, and there are no flags for it. Each plan is run against the ONNX graph
before it gets its tag.
Source: NVIDIA, TensorRT 11.4 Python API (checked by name against its wheel; never run here).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export import parity
from export.bundle import Bundle
from export.errors import GraphError, MissingExtraError, ParityError, SourceError
from export.hashing import digest_file
from export.manifest import Graph, TensorSpec
from export.staging import write_atomic
from export.tensorrt_engine import Array, Engine
from export.tensorrt_tag import (
    Hardware,
    Tag,
    dump,
    load_tensorrt,
    plan_file,
    plan_folder,
    this_hardware,
)

Sizes = tuple[int, int, int]
_BATCH: Sizes = (1, 8, 64)
_SEQUENCE = 128


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """profiles: smallest, best and largest size of an axis; others have defaults."""

    profiles: Mapping[str, Sizes]
    workspace_bytes: int = 4 << 30


def parse_profiles(given: Sequence[str]) -> dict[str, Sizes]:
    """`AXIS=MIN,OPT,MAX` each. Raises SourceError."""
    found: dict[str, Sizes] = {}
    for text in given:
        axis, _, numbers = text.partition("=")
        parts = numbers.split(",")
        sizes = tuple(int(part) for part in parts if part.isdecimal())
        if (
            not axis
            or len(parts) != 3
            or len(sizes) != 3
            or not 1 <= sizes[0] <= sizes[1] <= sizes[2]
        ):
            raise SourceError(f"--profile {text}: expected AXIS=MIN,OPT,MAX, such as batch=1,8,64")
        found[axis] = (sizes[0], sizes[1], sizes[2])
    return found


def axis_sizes(bundle: Bundle, graph: Graph, options: BuildOptions) -> dict[str, Sizes]:
    """Sizes of every dynamic axis of a graph's inputs. Raises SourceError for one not known."""
    settings = bundle.manifest.metadata.get("tokenizer")
    longest = settings.get("max_length") if isinstance(settings, dict) else None
    tokens = longest if isinstance(longest, int) else _SEQUENCE
    known = {"batch": _BATCH, "sequence": (1, min(32, tokens), tokens), **options.profiles}
    axes = {size for spec in graph.inputs for size in spec.shape if isinstance(size, str)}
    if missing := sorted(axes - set(known)):
        raise SourceError(f"axis {missing[0]!r}: give its sizes with --profile {missing[0]}=1,8,64")
    return {axis: known[axis] for axis in sorted(axes)}


def describe(bundle: Bundle, options: BuildOptions) -> list[str]:
    """What `build` would do, a line a graph. Raises GraphError for what cannot be built."""
    lines = []
    for name, graph in bundle.manifest.graphs.items():
        check_buildable(bundle, name)
        sizes = axis_sizes(bundle, graph, options)
        lines.append(f"{plan_folder(bundle)}/{name}.*.plan, {bundle.manifest.precision}, {sizes}")
    return lines


def check_buildable(bundle: Bundle, graph: str) -> None:
    """Refuse what TensorRT has no types for. Raises GraphError."""
    if bundle.manifest.precision == "int8":
        raise GraphError(
            "int8 bundles hold uint8 activations, which suit the CPU; TensorRT wants symmetric "
            "int8: build from the fp16 bundle"
        )
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "export") from error
    model = onnx.load(bundle.path(graph), load_external_data=False)
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    if onnx.TensorProto.DOUBLE in kinds:
        raise GraphError(
            f"{graph} computes in float64 (exact semantic IDs), which TensorRT has not: it is "
            "served by ONNX Runtime"
        )


def build(bundle: Bundle, options: BuildOptions, say: Callable[[str], None]) -> list[Path]:
    """Build the plan of every graph.

    Raises:
        MissingExtraError: no TensorRT or no GPU here.
        GraphError: TensorRT cannot parse or build a graph, or a plan computes something else.
    """
    trt = load_tensorrt()
    hardware = this_hardware()
    written = []
    for name in bundle.manifest.graphs:
        check_buildable(bundle, name)
        written.append(_build_graph(trt, bundle, name, hardware, (options, say)))
    return written


def _build_graph(
    trt: Any,
    bundle: Bundle,
    name: str,
    hardware: Hardware,
    how: tuple[BuildOptions, Callable[[str], None]],
) -> Path:
    options, say = how
    graph = bundle.manifest.graphs[name]
    sizes = axis_sizes(bundle, graph, options)
    file = plan_file(bundle, name, trt.__version__, hardware)
    file.parent.mkdir(parents=True, exist_ok=True)
    timings = file.parent.parent / f"timing.trt{trt.__version__}.sm{hardware.capability}.cache"
    say(f"building {name}")
    plan = _serialize(trt, bundle.path(name), graph, (sizes, options.workspace_bytes, timings))
    say(f"comparing {name} with its ONNX graph")
    compare(Engine(plan, graph), bundle, name, sizes)
    write_atomic(file, plan)
    tag = Tag(
        bundle_hash=bundle.bundle_hash,
        graph=name,
        onnx_sha256=bundle.manifest.files[graph.file].sha256,
        tensorrt=trt.__version__,
        hardware=hardware,
        profiles=sizes,
        plan_sha256=digest_file(file),
        plan_bytes=len(plan),
    )
    write_atomic(file.with_suffix(".json"), dump(tag))
    return file


def _serialize(
    trt: Any, onnx_file: Path, graph: Graph, how: tuple[dict[str, Sizes], int, Path]
) -> bytes:
    sizes, workspace_bytes, timings = how
    logger = trt.Logger(trt.Logger.Severity.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)  # strongly typed: TensorRT 11 knows nothing else
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise GraphError(f"TensorRT cannot parse {onnx_file.name}: {'; '.join(errors)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    profile = builder.create_optimization_profile()
    for spec in graph.inputs:
        shapes = [
            tuple(sizes[size][which] if isinstance(size, str) else size for size in spec.shape)
            for which in range(3)
        ]
        profile.set_shape(spec.name, *shapes)
    config.add_optimization_profile(profile)
    known = timings.read_bytes() if timings.exists() else b""
    cache = config.create_timing_cache(known)
    config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise GraphError(f"TensorRT cannot build {onnx_file.name}: its log says why")
    write_atomic(timings, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def compare(
    engine: Engine, bundle: Bundle, name: str, sizes: Mapping[str, tuple[int, int, int]]
) -> None:
    """Run the plan and the ONNX graph on the same inputs, at every profile's sizes.

    Raises:
        ParityError: a row's cosine is below the bar of the bundle's precision, or an ID differs.
    """
    session = parity.open_session(bundle.path(name))
    generator = np.random.default_rng(0)
    graph = bundle.manifest.graphs[name]
    names = [spec.name for spec in graph.outputs]
    pairs: list[tuple[list[Array], list[Array]]] = [([], []) for _ in names]
    for which in range(3):
        inputs = {}
        for spec in graph.inputs:
            shape = [sizes[n][which] if isinstance(n, str) else n for n in spec.shape]
            inputs[spec.name] = _draw(spec, shape, generator)
        expected, found = session.run(names, inputs), engine.run(inputs)
        for index, output in enumerate(names):
            pairs[index][0].append(expected[index])
            pairs[index][1].append(found[output])
    batches = tuple(sizes.get("batch", (1,)))
    figures = tuple(
        parity.compare(name, out, pair, batches) for out, pair in zip(names, pairs, strict=True)
    )
    if failures := parity.failures(figures, bundle.manifest.precision):
        raise ParityError(failures, parity.lines(figures))


def _draw(spec: TensorSpec, shape: list[int], generator: np.random.Generator) -> Array:
    if spec.name.endswith("mask"):
        return np.ones(shape, spec.dtype)
    if spec.dtype.startswith("float"):
        return generator.standard_normal(shape).astype(spec.dtype)
    # Small enough to be an id of any vocabulary, and all that a byte holds.
    return generator.integers(0, 256 if spec.dtype == "uint8" else 30, shape).astype(spec.dtype)
