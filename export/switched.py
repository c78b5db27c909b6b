"""A graph that holds its products twice, in fp32 and in int8, and is told at each run which count.

In: a graph in fp32, and the same one with all of its products quantized dynamically. Out: what it
gives with any of them in int8. Ranking runs a graph once a product; a file and a session for each
would take many times as long as running them (a ViT-B/32 has 73).
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export import parity

Array = npt.NDArray[Any]
_SWITCH = "switch."


class Switched:
    """Both graphs in one session.

    Args:
        plain, quantized: their files; the names of values are the same in both.
        names: the nodes of `plain` that are quantized.
        target: where the joined graph is written, its weights beside it.
    """

    def __init__(self, plain: Path, quantized: Path, names: Sequence[str], target: Path) -> None:
        self._switches = {name: f"{_SWITCH}{at}" for at, name in enumerate(names)}
        _join(plain, quantized, self._switches, target)
        self._session = parity.open_session(target)

    def run(self, chosen: Collection[str], rows: Sequence[dict[str, Array]]) -> list[list[Array]]:
        """All outputs of every batch, with the chosen nodes in int8."""
        on = {switch: np.array(name in chosen) for name, switch in self._switches.items()}
        return [self._session.run(None, feeds | on) for feeds in rows]


def _join(plain: Path, quantized: Path, switches: dict[str, str], target: Path) -> None:
    import onnx
    from onnx import helper

    exact, model = onnx.load(plain), onnx.load(quantized)
    doubled = {
        node.output[0]: (node, switches[node.name])
        for node in exact.graph.node
        if node.name in switches
    }
    nodes: list[Any] = []
    for node in model.graph.node:
        nodes.append(node)
        for at, value in enumerate(node.output):
            if value in doubled:
                product, switch = doubled[value]
                node.output[at] = f"{value}.int8"
                # What it takes is what the quantized one takes, and was made before it.
                product.output[0] = f"{value}.fp32"
                nodes.append(product)
                both = [switch, f"{value}.int8", f"{value}.fp32"]
                nodes.append(helper.make_node("Where", both, [value], name=switch))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    kept = {tensor.name for tensor in model.graph.initializer}
    wanted = {name for product, _ in doubled.values() for name in product.input} - kept
    model.graph.initializer.extend(t for t in exact.graph.initializer if t.name in wanted)
    model.graph.input.extend(
        helper.make_tensor_value_info(switch, onnx.TensorProto.BOOL, [])
        for switch in switches.values()
    )
    # A file alone would be too large where both together pass 2 GiB.
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")
