"""The gate: source and artefact on the same inputs, at several sizes of every dynamic axis.

In: a `GraphSource` and the ONNX file made from it. Out: one `Parity` an output, and whether it is
above the bar of its precision. That the graph runs at all these sizes is also what shows its axes
to be dynamic.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from export.errors import GraphError, MissingExtraError
from export.manifest import Parity, TensorSpec
from export.progress import Advance, counted
from export.sources.source import GraphSource

Array = npt.NDArray[Any]
COSINE_BARS = {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.999}
_RANKED_ROWS = 256
_MANY_RUNS = 1000


def open_session(file: Path, threads: int = 0) -> Any:
    """An ONNX Runtime session on the CPU, on all cores (0) or so many.

    Raises:
        GraphError: the file does not load.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime") from error
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise GraphError(f"{file.name} does not load in ONNX Runtime: {error}") from error


def measure(name: str, graph: GraphSource, file: Path, seed: int = 0) -> tuple[Parity, ...]:
    """Run source and artefact side by side.

    Raises:
        GraphError: the artefact does not load, has other tensors, or fails at some size.
    """
    session = open_session(file)
    _check_interface(name, graph, session)
    sources: list[list[Array]] = [[] for _ in graph.outputs]
    artefacts: list[list[Array]] = [[] for _ in graph.outputs]
    batches = []
    generator, drawn = torch.Generator().manual_seed(seed), None
    planned = list(trials(graph))
    # Inputs are drawn anew, and the source is run, only where the sizes change.
    runs = [sizes["batch"] for sizes, _ in (*planned, *groupby(planned, itemgetter(0)))]
    with counted("rows, source and artefact", sum(runs)) as advance:
        for sizes, batch in planned:
            if sizes != drawn:
                drawn, inputs = sizes, graph.sample(sizes, generator)
                # The source always in the largest batches, so that what the batch changes is seen.
                largest = graph.axes["batch"][-1]
                expected = _in_batches(partial(_run_source, graph), inputs, largest, advance)
            # Waking threads for a row costs more than they save, where there are many rows.
            is_alone = batch == 1 and sizes["batch"] > _MANY_RUNS
            chosen = open_session(file, threads=1) if is_alone else session
            found = _in_batches(partial(_run, chosen, graph), inputs, batch, advance)
            for index, (left, right) in enumerate(zip(expected, found, strict=True)):
                _check_shape(graph.outputs[index], sizes, left, right)
                sources[index].append(left)
                artefacts[index].append(right)
            batches.append(batch)
    return tuple(
        compare(name, tensor.name, (left, right), tuple(batches))
        for tensor, left, right in zip(graph.outputs, sources, artefacts, strict=True)
    )


def trials(graph: GraphSource) -> Iterator[tuple[dict[str, int], int]]:
    """Sizes to draw inputs of, and the batch size to run the artefact at.

    The axes' sizes side by side, then one row at every axis' largest.
    """
    for index in range(max(len(sizes) for sizes in graph.axes.values())):
        sizes = {axis: sizes[min(index, len(sizes) - 1)] for axis, sizes in graph.axes.items()}
        batch = sizes["batch"]
        rows = min(graph.rows, graph.single_rows) if batch == 1 else graph.rows
        yield sizes | {"batch": max(batch, rows)}, batch
    yield {axis: 1 if axis == "batch" else sizes[-1] for axis, sizes in graph.axes.items()}, 1


def compare(
    graph: str,
    output: str,
    pairs: tuple[list[Array], list[Array]],
    batch_sizes: tuple[int, ...],
) -> Parity:
    """Figures of one output. `pairs`: lists of source and artefact arrays, (B, ...) each."""
    source, artefact = (np.concatenate([a.reshape(len(a), -1) for a in side]) for side in pairs)
    error = float(np.abs(source.astype(np.float64) - artefact.astype(np.float64)).max())
    if np.issubdtype(source.dtype, np.integer):
        flips = float((source != artefact).any(1).mean())
        return Parity(graph, output, len(source), batch_sizes, error, flip_rate=flips)
    return Parity(
        graph,
        output,
        len(source),
        batch_sizes,
        error,
        cosine=float(cosines(source, artefact).min()),
        rank_correlation=_rank_correlation(source[-_RANKED_ROWS:], artefact[-_RANKED_ROWS:]),
    )


def failures(parities: tuple[Parity, ...], precision: str) -> list[str]:
    """One line for each figure below its bar; NaN is below every bar."""
    bar = COSINE_BARS[precision]
    lines = []
    for parity in parities:
        label = f"{parity.graph}.{parity.output}"
        if parity.cosine is not None and not parity.cosine >= bar:
            lines.append(f"{label}: cosine {parity.cosine:.7f}, bar {bar} for {precision}")
        if parity.flip_rate is not None and not parity.flip_rate <= 0:
            lines.append(f"{label}: {parity.flip_rate:.4%} of rows change an ID, bar 0")
    return lines


def lines(parities: tuple[Parity, ...]) -> list[str]:
    """One readable line an output."""
    return [
        f"{parity.graph}.{parity.output}: {parity.rows} rows, "
        f"max abs error {parity.max_abs_error:.3g}"
        + (f", cosine {parity.cosine:.8f}" if parity.cosine is not None else "")
        + (f", rank {parity.rank_correlation:.6f}" if parity.rank_correlation is not None else "")
        + (f", flips {parity.flip_rate:.4%}" if parity.flip_rate is not None else "")
        for parity in parities
    ]


def _in_batches(
    run: Callable[[tuple[torch.Tensor, ...]], list[Array]],
    inputs: tuple[torch.Tensor, ...],
    batch: int,
    advance: Advance,
) -> list[Array]:
    found = []
    for chunk in zip(*(torch.split(tensor, batch) for tensor in inputs), strict=True):
        found.append(run(chunk))
        advance(len(chunk[0]))
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _run_source(graph: GraphSource, inputs: tuple[torch.Tensor, ...]) -> list[Array]:
    try:
        with torch.inference_mode():
            result = graph.module(*inputs)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        shapes = [tuple(tensor.shape) for tensor in inputs]
        raise GraphError(f"the source fails at {shapes}: {error}") from error
    outputs = result if isinstance(result, tuple) else (result,)
    return [output.numpy() for output in outputs]


def _run(session: Any, graph: GraphSource, inputs: tuple[torch.Tensor, ...]) -> list[Array]:
    feeds = {spec.name: tensor.numpy() for spec, tensor in zip(graph.inputs, inputs, strict=True)}
    try:
        outputs: list[Array] = session.run([tensor.name for tensor in graph.outputs], feeds)
    except Exception as error:
        shapes = {name: array.shape for name, array in feeds.items()}
        raise GraphError(f"the exported graph fails at {shapes}: {error}") from error
    return outputs


def _check_interface(name: str, graph: GraphSource, session: Any) -> None:
    for side, specs, found in (
        ("inputs", graph.inputs, session.get_inputs()),
        ("outputs", graph.outputs, session.get_outputs()),
    ):
        expected = [(spec.name, *_axes(spec.shape)) for spec in specs]
        actual = [(value.name, *_axes(value.shape)) for value in found]
        if expected != actual:
            raise GraphError(f"{name}: {side} should be {expected}, the file has {actual}")


def _axes(shape: tuple[int | str, ...] | list[int | str]) -> tuple[int | str, ...]:
    return tuple("dynamic" if isinstance(size, str) else size for size in shape)


def _check_shape(spec: TensorSpec, sizes: dict[str, int], left: Array, right: Array) -> None:
    shape = tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)
    for side, array in (("source", left), ("artefact", right)):
        if array.shape != shape or array.dtype != spec.dtype:
            raise GraphError(
                f"{spec.name}: the {side} gives {array.dtype} {array.shape} at {sizes}, "
                f"expected {spec.dtype} {shape}"
            )


def cosines(left: Array, right: Array) -> Array:
    """Of each row, (B, D) and (B, D) -> (B,); two rows of zeros are equal."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    both_zero = ~left.any(1) & ~right.any(1)
    cosines: Array = (left * right).sum(1) / np.where(norms == 0, 1, norms)
    return np.where(both_zero, 1.0, cosines)


def _rank_correlation(left: Array, right: Array) -> float | None:
    """Spearman's, of the similarities of all pairs of rows; None where there is nothing to rank."""
    from scipy.stats import rankdata

    upper = np.triu_indices(len(left), 1)
    ranks = [rankdata((rows @ rows.T)[upper]) for rows in (left, right)]
    if len(upper[0]) < 2 or any(rank.std() == 0 for rank in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])
