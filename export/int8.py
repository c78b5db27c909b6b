"""int8 by node: as many as the bar allows, the most sensitive ones left in fp32.

In: an fp32 ONNX file and the source it was made from. Out: the file in int8. Matrix products are
quantized dynamically (activations are measured as they come), convolutions by calibration on the
source's samples; weights are int8 per output channel, activations uint8: what ONNX Runtime has
AMX and VNNI kernels for. A vision transformer's patches become a product first (`export.patches`).
Leaving out what costs accuracy first is as in Wu et al., "Integer Quantization for Deep Learning
Inference" (2020), section 6.2: nodes are ranked by what each alone does to the output.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from export import parity, patches
from export.errors import GraphError, ParityError
from export.progress import Advance, counted
from export.reduced import Reduced
from export.sources.source import GraphSource
from export.switched import Switched

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
# Nodes in int8 and batches -> all outputs of each batch.
Run = Callable[[Sequence[str], list[Feeds]], list[list[Array]]]
_MATMULS = ("MatMul", "Gemm")
_OPERATORS = (*_MATMULS, "Conv")
# Below this share of the weights, int8 changes hardly anything but the accuracy.
_WORTHWHILE = 0.25
_ROWS, _DRAWS = 64, 4
# Parity draws other rows and keeps the worst of them: stay clear of the bar.
_MARGIN = 0.3
_MOST_RANKED = 160


def reduce_to_int8(file: Path, graph: GraphSource, bar: float) -> Reduced:
    """Rewrite `file` in int8.

    Raises:
        GraphError: hardly any weights are in products or convolutions.
        ParityError: hardly any node can be in int8 without going below the bar.
    """
    with TemporaryDirectory(prefix="int8-", dir=file.parent) as scratch:
        target, joined = Path(scratch) / "int8.onnx", Path(scratch) / "joined.onnx"
        whole = joined if patches.join(file, joined) else file
        weights = Weights(whole)
        nodes = list(weights.nodes)
        if weights.share(nodes) < _WORTHWHILE:
            raise GraphError(
                f"{file.name}: only {weights.share(nodes):.0%} of its weights are in matrix "
                "products and convolutions, int8 is of no use here; export it in fp32 or fp16"
            )
        rows = _draw(graph)
        expected = _run(file, rows)
        calibration = rows if weights.are_convolutions else []

        def quantized(chosen: Sequence[str], tried: list[Feeds]) -> list[list[Array]]:
            return _run(quantize(whole, calibration, target, chosen), tried)

        def worst(run: Run, chosen: Sequence[str]) -> float:
            # A node alone is ranked, not judged: there are many, and the longest rows tell enough.
            first = -1 if len(chosen) < 2 < len(nodes) else 0
            return _worst_cosine(expected[first:], run(chosen, rows[first:]))

        wanted = bar + _MARGIN * (1 - bar)
        chosen = nodes
        if worst(quantized, nodes) < wanted and len(nodes) <= _MOST_RANKED:
            run: Run = quantized
            if not calibration:
                # What calibration chooses for a node depends on the nodes beside it.
                run = Switched(whole, target, nodes, Path(scratch) / "switched.onnx").run
            chosen = choose(nodes, partial(worst, run), wanted)
        if weights.share(chosen) < _WORTHWHILE:
            raise ParityError(
                [f"{file.stem}: int8 keeps a cosine of {bar} only with too few nodes in int8"],
                [f"{len(nodes) - len(chosen)} of {len(nodes)} nodes had to stay in fp32"],
            )
        quantize(whole, calibration, target, chosen).replace(file)
    file.with_name(f"{file.name}.data").unlink(missing_ok=True)
    method = "calibrated" if calibration else "dynamic"
    return Reduced(method, len(nodes) - len(chosen), len(nodes))


def choose(nodes: list[str], worst: Callable[[Sequence[str]], float], bar: float) -> list[str]:
    """As many nodes as keep the worst row above the bar, the most harmless ones first.

    Args:
        nodes: more than keep it.
        worst: the lowest cosine with these nodes in int8.
    """
    harm = {}
    with counted("ranking nodes by what each costs", len(nodes)) as advance:
        for name in nodes:
            harm[name] = -worst([name])
            advance(1)
    ranked = sorted(nodes, key=lambda name: harm[name])
    good, bad = 0, len(nodes)
    with counted("how many keep the bar", (len(nodes) - 1).bit_length()) as advance:
        while bad - good > 1:
            middle = (good + bad) // 2
            if worst(ranked[:middle]) >= bar:
                good = middle
            else:
                bad = middle
            advance(1)
    return ranked[:good]


class Weights:
    """Which nodes have weights that could be int8, and how many of all weights those are."""

    def __init__(self, file: Path) -> None:
        import onnx

        graph = onnx.load(file, load_external_data=False).graph
        counts = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
        # Embedding tables are looked up, not multiplied: they count neither way.
        gathered = {node.input[0] for node in graph.node if node.op_type == "Gather"}
        self._total = sum(size for name, size in counts.items() if name not in gathered)
        candidates = [node for node in graph.node if node.op_type in _OPERATORS]
        sizes = {
            node.name: sum(counts.get(name, 0) for name in node.input[:2]) for node in candidates
        }
        convolved = {node.name for node in candidates if node.op_type == "Conv"}
        self.are_convolutions = 2 * sum(sizes[name] for name in convolved) > sum(sizes.values())
        # A lone convolution among products (the patches of a ViT) stays as it is.
        left_out = set() if self.are_convolutions else convolved
        self.nodes = {name: size for name, size in sizes.items() if size and name not in left_out}

    def share(self, nodes: Iterable[str]) -> float:
        """Share of all weights that are in these nodes."""
        return sum(self.nodes[name] for name in nodes) / max(self._total, 1)


class Calibration:
    """Batches for ONNX Runtime's calibration, one row each; it asks until there is None."""

    def __init__(self, rows: list[Feeds], advance: Advance) -> None:
        self._left = iter(rows)
        self._advance = advance

    def get_next(self) -> Feeds | None:
        self._advance(1)
        return next(self._left, None)


def quantize(file: Path, rows: list[Feeds], target: Path, chosen: Sequence[str]) -> Path:
    """Quantize these nodes of `file` into `target`; calibrated where `rows` are given."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    # A Gemm may become a MatMul of this name first; names that are not there do no harm.
    names = [name + suffix for name in chosen for suffix in ("", "_MatMul")]
    common = {"nodes_to_quantize": names, "per_channel": True}
    # The root logger is told of a preparation that changes nothing for exported graphs.
    logger = logging.getLogger()
    logger.addFilter(_is_not_advice)
    try:
        if rows:
            # It asks once more than there are.
            with counted("calibrating", len(rows) + 1) as advance:
                quantize_static(
                    file,
                    target,
                    Calibration(rows, advance),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(_OPERATORS),
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    **common,
                )
        else:
            quantize_dynamic(
                file,
                target,
                op_types_to_quantize=list(_MATMULS),
                weight_type=QuantType.QInt8,
                **common,
            )
    finally:
        logger.removeFilter(_is_not_advice)
    return target


def _draw(graph: GraphSource) -> list[Feeds]:
    """Samples as single batches of all rows' sizes: several of each dynamic axis."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for index in range(_DRAWS):
        sizes = {axis: of[min(index, len(of) - 1)] for axis, of in graph.axes.items()}
        sizes["batch"] = _ROWS // _DRAWS
        tensors = graph.sample(sizes, generator)
        found.append({spec.name: t.numpy() for spec, t in zip(graph.inputs, tensors, strict=True)})
    return found


def _run(file: Path, rows: list[Feeds]) -> list[list[Array]]:
    """All outputs of every batch."""
    session = parity.open_session(file)
    return [session.run(None, feeds) for feeds in rows]


def _worst_cosine(expected: list[list[Array]], found: list[list[Array]]) -> float:
    """The lowest of all rows of all outputs; NaN counts as -1."""
    pairs = [
        pair
        for left, right in zip(expected, found, strict=True)
        for pair in zip(left, right, strict=True)
    ]
    worst = min(
        float(parity.cosines(a.reshape(len(a), -1), b.reshape(len(b), -1)).min()) for a, b in pairs
    )
    return worst if worst == worst else -1.0


def _is_not_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()
