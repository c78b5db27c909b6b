"""Named arrays, which all that computes takes and gives, and the axis along which they batch.

In: graphs as manifests describe them. Out: the name of their batch axis.
"""

import numpy as np
from numpy.typing import NDArray

from export.manifest import Graph

Tensors = dict[str, NDArray[np.generic]]


def held_bytes(tensors: Tensors) -> int:
    """Bytes that the tensors keep in memory; of strings, their characters too."""
    total = 0
    for array in tensors.values():
        total += array.nbytes
        if array.dtype == np.object_:
            total += sum(map(len, array.ravel().tolist()))
    return total


def batch_axis(graph: Graph) -> str | None:
    """The named axis that leads every input and output; None: rows cannot be batched."""
    leading = {spec.shape[0] if spec.shape else None for spec in (*graph.inputs, *graph.outputs)}
    axis = leading.pop() if len(leading) == 1 else None
    return axis if isinstance(axis, str) else None
