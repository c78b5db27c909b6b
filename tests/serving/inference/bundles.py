"""Small real bundles: the three encoder models, one graph a datatype, and graphs without rows.

They are written with onnx.helper, so that the tests of serving need no training and no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export import Bundle, Repository
from export.manifest import DTYPES, Graph, Manifest, Source, TensorSpec

SIZE, D, WORDS = 8, 12, ["[UNK]", "red", "shoes", "blue", "hat", "cheap"]
ONNX_TYPES = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "object": TensorProto.STRING,
}


def spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, dtype, shape)


def write_graph(
    path: Path,
    signature: Graph,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
) -> None:
    def info(tensor: TensorSpec) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(
            tensor.name, ONNX_TYPES[tensor.dtype], list(tensor.shape)
        )

    graph = helper.make_graph(
        list(nodes),
        "graph",
        [info(tensor) for tensor in signature.inputs],
        [info(tensor) for tensor in signature.outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def unit(name: str) -> list[onnx.NodeProto]:
    """Nodes that make the rows of `raw` unit vectors called `name`."""
    return [
        helper.make_node("ReduceL2", ["raw", "axes1"], ["norm"], keepdims=1),
        helper.make_node("Div", ["raw", "norm"], [name]),
    ]


def image_encoder(folder: Path) -> dict[str, Graph]:
    graph = Graph(
        "model.onnx",
        (spec("pixels", "uint8", "batch", SIZE, SIZE, 3),),
        (spec("image_features", "float32", "batch", D),),
    )
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["centred"]),
        helper.make_node("Add", ["centred", "bias"], ["raw"]),
        *unit("image_features"),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "flat": np.asarray([-1, SIZE * SIZE * 3], np.int64),
        "weights": rng.normal(size=(SIZE * SIZE * 3, D)).astype(np.float32),
        "bias": np.ones(D, np.float32),
        "axes1": np.asarray([1], np.int64),
    }
    write_graph(folder / graph.file, graph, nodes, constants)
    return {"model": graph}


def text_encoder(folder: Path) -> dict[str, Graph]:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    graph = Graph(
        "model.onnx",
        (
            spec("input_ids", "int64", "batch", "tokens"),
            spec("attention_mask", "int64", "batch", "tokens"),
        ),
        (spec("text_features", "float32", "batch", D),),
    )
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask2"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask2", "axes2"], ["mask"]),
        helper.make_node("Mul", ["embedded", "mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axes1"], ["summed"], keepdims=0),
        helper.make_node("Add", ["summed", "bias"], ["raw"]),
        *unit("text_features"),
    ]
    rng = np.random.default_rng(1)
    constants = {
        "words": rng.normal(size=(len(WORDS), D)).astype(np.float32),
        "bias": np.full(D, 0.1, np.float32),
        "axes1": np.asarray([1], np.int64),
        "axes2": np.asarray([2], np.int64),
    }
    write_graph(folder / graph.file, graph, nodes, constants)
    return {"model": graph}


def semantic_id(folder: Path) -> dict[str, Graph]:
    """Six codes: each the place of the nearest of 16 centres in a projection of its own."""
    encode = Graph(
        "encode.onnx",
        (spec("features", "float32", "batch", D),),
        (spec("codes", "int32", "batch", 6), spec("margin", "float32", "batch", 6)),
    )
    decode = Graph(
        "decode.onnx",
        (spec("codes", "int32", "batch", 6),),
        (spec("features_hat", "float32", "batch", D),),
    )
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("MatMul", ["features", "centres"], ["flat"]),
        helper.make_node("Reshape", ["flat", "cube"], ["scores"]),
        helper.make_node("TopK", ["scores", "two"], ["best", "places"], axis=2),
        helper.make_node("Split", ["best"], ["first", "second"], axis=2, num_outputs=2),
        helper.make_node("Sub", ["first", "second"], ["gap"]),
        helper.make_node("Squeeze", ["gap", "axes2"], ["margin"]),
        helper.make_node("Split", ["places"], ["winner", "_"], axis=2, num_outputs=2),
        helper.make_node("Squeeze", ["winner", "axes2"], ["places64"]),
        helper.make_node("Cast", ["places64"], ["codes"], to=TensorProto.INT32),
    ]
    constants = {
        "centres": rng.normal(size=(D, 6 * 16)).astype(np.float32),
        "cube": np.asarray([-1, 6, 16], np.int64),
        "two": np.asarray([2], np.int64),
        "axes2": np.asarray([2], np.int64),
    }
    write_graph(folder / encode.file, encode, nodes, constants)
    nodes = [
        helper.make_node("Gather", ["vectors", "codes"], ["looked_up"]),
        helper.make_node("ReduceMean", ["looked_up", "axes1"], ["features_hat"], keepdims=0),
    ]
    constants = {
        "vectors": rng.normal(size=(16, D)).astype(np.float32),
        "axes1": np.asarray([1], np.int64),
    }
    write_graph(folder / decode.file, decode, nodes, constants)
    return {"encode": encode, "decode": decode}


def every_type(folder: Path) -> dict[str, Graph]:
    """Gives back each of its inputs, one a datatype: `in_<dtype>` (batch, 2) -> `out_<dtype>`."""
    graph = Graph(
        "model.onnx",
        tuple(spec(f"in_{dtype}", dtype, "batch", 2) for dtype in sorted(DTYPES)),
        tuple(spec(f"out_{dtype}", dtype, "batch", 2) for dtype in sorted(DTYPES)),
    )
    nodes = [helper.make_node("Identity", [f"in_{d}"], [f"out_{d}"]) for d in DTYPES]
    write_graph(folder / graph.file, graph, nodes, {})
    return {"model": graph}


def fixed(folder: Path) -> dict[str, Graph]:
    """A graph without a batch axis: (3,) -> sum of it, a scalar."""
    graph = Graph("model.onnx", (spec("x", "float32", 3),), (spec("total", "float32"),))
    nodes = [helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0)]
    write_graph(folder / graph.file, graph, nodes, {})
    return {"model": graph}


def scalar(folder: Path) -> dict[str, Graph]:
    """A graph of scalars: its input again."""
    graph = Graph("model.onnx", (spec("x", "float32"),), (spec("y", "float32"),))
    write_graph(folder / graph.file, graph, [helper.make_node("Identity", ["x"], ["y"])], {})
    return {"model": graph}


MAKERS: dict[str, Callable[[Path], dict[str, Graph]]] = {
    "image_encoder": image_encoder,
    "text_encoder": text_encoder,
    "semantic_id": semantic_id,
    "every_type": every_type,
    "fixed": fixed,
    "scalar": scalar,
}


def publish(repository: Repository, name: str) -> Bundle:
    """Publish the bundle called `name` once more, as its next version."""
    with repository.staging(name) as folder:
        graphs = MAKERS[name](folder)
        manifest = Manifest(name, name, "fp32", graphs, Source("onnx.helper", "0" * 64))
        return repository.publish(Bundle.draft(folder, manifest))
