"""Whether arrays are what a graph takes, said before the runtime is asked.

In: named arrays and the graph's tensors as its manifest describes them. Out: how many rows they
are, what they cost, and which shapes may share a batch; or an error that names the tensor.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from export.manifest import Graph, TensorSpec
from serving.errors import InvalidRequestError
from serving.models.datatypes import PROTOCOL_NAMES, Array, elements

# Bounds what one request can make the runtime allocate along an axis that the manifest leaves open.
MAX_DYNAMIC_AXIS = 8192


@dataclass(frozen=True, slots=True)
class Work:
    """What a request is to the batcher.

    rows: along the batch axis (1 where there is none). cost: rows times the open axes of a row
    (tokens). group: requests with the same one can be joined along the batch axis.
    """

    rows: int
    cost: int
    group: Hashable


def describe(spec: TensorSpec) -> str:
    """A tensor as its protocol datatype and shape; open axes by name."""
    return f"{PROTOCOL_NAMES[spec.dtype]} {list(spec.shape)}"


def check(graph: Graph, inputs: Mapping[str, Array], batch: str | None) -> Work:
    """Check inputs against the graph; `batch` names its batch axis.

    Raises InvalidRequestError: a wrong name, datatype, rank or size; sizes of one axis that
    differ between inputs; no row at all.
    """
    expected = {spec.name: spec for spec in graph.inputs}
    if set(inputs) != set(expected):
        raise InvalidRequestError(
            f"expected the inputs {sorted(expected)}, found {sorted(inputs)}; correct the names"
        )
    axes: dict[str, int] = {}
    for name, spec in expected.items():
        _check_tensor(spec, inputs[name], axes)
    for axis, size in axes.items():
        if size == 0:
            raise InvalidRequestError(f"axis {axis!r} is empty; send at least one row")
        if axis != batch and size > MAX_DYNAMIC_AXIS:
            raise InvalidRequestError(
                f"axis {axis!r}: expected at most {MAX_DYNAMIC_AXIS}, found {size}"
            )
    rows = axes.get(batch, 1) if batch is not None else 1
    open_axes = {axis: size for axis, size in axes.items() if axis != batch}
    return Work(rows, rows * elements(tuple(open_axes.values())), tuple(sorted(open_axes.items())))


def _check_tensor(spec: TensorSpec, array: Array, axes: dict[str, int]) -> None:
    fits = array.dtype == np.dtype(spec.dtype) and len(array.shape) == len(spec.shape)
    if fits:
        for size, found in zip(spec.shape, array.shape, strict=True):
            fits &= isinstance(size, str) or size == found
    if not fits:
        found = f"{PROTOCOL_NAMES.get(array.dtype.name, array.dtype.name)} {list(array.shape)}"
        raise InvalidRequestError(f"input {spec.name!r}: expected {describe(spec)}, found {found}")
    for size, given in zip(spec.shape, array.shape, strict=True):
        if isinstance(size, str) and axes.setdefault(size, given) != given:
            raise InvalidRequestError(
                f"input {spec.name!r}: axis {size!r} is {given} here and {axes[size]} in another "
                "input; they must be equal"
            )
