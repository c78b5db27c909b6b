"""A vision transformer's patches as one matrix product of bytes, for int8.

In: a graph whose first layer is a convolution that cuts `pixels` (B, H, W, C) uint8 into patches
that do not overlap, after (x - mean) / std. Out: the same function as rearranged bytes, less the
mean in whole numbers, times one matrix that std and the rest of the mean are folded into. int8
multiplies whole numbers as they are; with the mean left in them, the weights' rounding errors would
be multiplied by how bright a picture is. fp32 and fp16 keep the convolution: folding makes weights
too small for fp16.
Source: a patch embedding is linear (Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021,
section 3.1).
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from export.onnx_nodes import made_by, only_user

Array = npt.NDArray[Any]
_CHANNELS_FIRST, _ROWS = [0, 3, 1, 2], [0, 2, 1]
_NAME = "patches"


def join(file: Path, target: Path) -> bool:
    """Write `file` with its patches joined to `target`; False, and no file, where it has none."""
    model = ir.load(file)
    # The first one alone: there is one layer that reads pixels.
    if not any(_join(model.graph, node) for node in model.graph if node.op_type == "Conv"):
        return False
    RemoveUnusedNodesPass()(model)
    is_split = file.with_name(f"{file.name}.data").exists()
    ir.save(model, target, external_data=f"{target.name}.data" if is_split else None)
    return True


def _join(graph: ir.Graph, convolution: ir.Node) -> bool:
    """Whether this convolution was of the known form, and is a product now."""
    (pixels, mean, std), rows = _before(convolution), _after(convolution)
    weight, bias = (_array(value) for value in (*convolution.inputs, None)[1:3])
    if pixels is None or pixels.shape is None or rows is None:
        return False
    if weight is None or mean is None or std is None or not _cuts(convolution, weight):
        return False
    count, channels, high, wide = weight.shape
    height, width = (int(str(size)) for size in pixels.shape[1:3])
    if height % high or width % wide:
        return False
    # (P, Q, C, D): a patch's bytes lie so.
    scaled = (weight.astype(np.float64) / std[:, None, None]).transpose(2, 3, 1, 0)
    # Whole numbers, which int8 keeps as they are; what the mean has beyond them goes to the bias.
    middle = np.round(mean)
    offset = (0 if bias is None else bias) - np.einsum("pqcd,c->d", scaled, mean - middle)
    down, across = height // high, width // wide
    values: dict[str, Array] = {
        "cut": np.array([-1, down, high, across, wide, channels]),
        "flat": np.array([-1, down * across, high * wide * channels]),
        "middle": np.tile(middle, high * wide).astype(np.float32),
        "weight": scaled.reshape(-1, count).astype(np.float32),
        "bias": offset.astype(np.float32),
    }
    known = {key: ir.tensor(array, name=f"{_NAME}.{key}") for key, array in values.items()}
    made = {key: ir.Value(name=tensor.name, const_value=tensor) for key, tensor in known.items()}
    for key, tensor in known.items():
        made[key].shape = ir.Shape(values[key].shape)
        made[key].type = ir.TensorType(tensor.dtype)
        graph.register_initializer(made[key])
    steps: list[tuple[str, list[ir.Value], dict[str, Any]]] = [
        ("Reshape", [made["cut"]], {}),
        ("Transpose", [], {"perm": [0, 1, 3, 2, 4, 5]}),
        ("Reshape", [made["flat"]], {}),
        ("Cast", [], {"to": ir.DataType.FLOAT}),
        ("Sub", [made["middle"]], {}),
        ("MatMul", [made["weight"]], {}),
        ("Add", [made["bias"]], {}),
    ]
    value = pixels
    for number, (operator, others, attributes) in enumerate(steps):
        name = f"{_NAME}.{number}"
        node = ir.node(operator, [value, *others], attributes=attributes, name=name)
        value = node.outputs[0]
        value.name = f"{name}.out"
        graph.insert_before(convolution, node)
    value.shape, value.type = rows.shape, rows.type
    ir.convenience.replace_all_uses_with(rows, value)
    return True


def _before(convolution: ir.Node) -> tuple[ir.Value | None, Array | None, Array | None]:
    """`pixels`, mean and std of Transpose(Div(Sub(Cast(pixels), mean), std)); None where absent."""
    moved = made_by(convolution.inputs[0], "Transpose")
    if moved is None or _perm(moved) != _CHANNELS_FIRST:
        return None, None, None
    divided = made_by(moved.inputs[0], "Div")
    less = made_by(divided.inputs[0], "Sub") if divided else None
    cast = made_by(less.inputs[0], "Cast") if less else None
    if divided is None or less is None or cast is None:
        return None, None, None
    pixels = cast.inputs[0]
    if pixels is None or pixels.dtype != ir.DataType.UINT8:
        return None, None, None
    return pixels, _array(less.inputs[1]), _array(divided.inputs[1])


def _after(convolution: ir.Node) -> ir.Value | None:
    """(B, patches, D), where that is all that is made of (B, D, rows, columns)."""
    flat = only_user(convolution.outputs[0], "Reshape")
    moved = only_user(flat.outputs[0], "Transpose") if flat else None
    if moved is None or _perm(moved) != _ROWS or moved.outputs[0].is_graph_output():
        return None
    return moved.outputs[0]


def _cuts(convolution: ir.Node, weight: Array) -> bool:
    """Whether its windows touch and nothing is padded, spread or grouped."""
    attributes = convolution.attributes
    window = list(weight.shape[2:])
    return (
        weight.ndim == 4
        and list(attributes.get_ints("strides", [1, 1])) == window
        and not any(attributes.get_ints("pads", [0] * 4))
        and list(attributes.get_ints("dilations", [1, 1])) == [1, 1]
        and attributes.get_int("group", 1) == 1
        and attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    )


def _perm(node: ir.Node) -> list[int]:
    return list(node.attributes.get_ints("perm", []))


def _array(value: ir.Value | None) -> Array | None:
    constant = None if value is None else value.const_value
    return None if constant is None else constant.numpy()
