"""A repository of small real bundles: the three encoder models, and one graph a datatype.

They are written with onnx.helper, so that the tests of serving need no training and no torch.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
import uvicorn
from fastapi import FastAPI
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import service_pb2_grpc

from export import Bundle, Repository
from export.manifest import DTYPES, Graph, Manifest, Source, TensorSpec
from serving import rpc
from serving.batcher import Limits
from serving.models import routes
from serving.models.model import Model
from serving.models.service import ModelService
from serving.replica import Replica
from serving.session import Runtime

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


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """All of the bundles, version 1 each; nobody publishes into it."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    for name in MAKERS:
        publish(repository, name)
    return repository


@pytest.fixture
def own_bundles(tmp_path: Path) -> tuple[Repository, Callable[[str], Bundle]]:
    """An empty repository of the test's own, and what publishes a bundle into it by name."""
    repository = Repository(tmp_path / "models")
    return repository, lambda name: publish(repository, name)


@dataclass(frozen=True)
class Front:
    """Models behind real HTTP and gRPC servers, without Ray. Addresses are host:port."""

    http: str
    grpc: str
    models: dict[str, Model]


class Router(ModelService, service_pb2_grpc.GRPCInferenceServiceServicer):
    """Does what Serve's ingress does: the metadata `application` chooses the model."""

    def __init__(self, replicas: dict[str, tuple[Replica, Model]]) -> None:
        self._replicas = replicas

    async def _run(self, context: Any, method: str, answer: Any, empty: Any, scope: Any = None):
        name = dict(context.invocation_metadata()).get("application", "every_type")
        self._replica, self._model = self._replicas[name]
        self._calls = rpc.Calls(self._replica)
        return await super()._run(context, method, answer, empty, scope)


@pytest.fixture(scope="session")
def front(bundles: Repository) -> Iterator[Front]:
    """Every bundle of the repository served in a thread, at the paths of the deployment."""
    started: Future[Front] = Future()
    stop = Event()
    thread = Thread(target=lambda: asyncio.run(_serve(bundles, started, stop)), daemon=True)
    thread.start()
    yield started.result(timeout=60)
    stop.set()
    thread.join(timeout=30)


async def _serve(repository: Repository, started: "Future[Front]", stop: Event) -> None:
    replicas: dict[str, tuple[Replica, Model]] = {}
    apps: dict[str, FastAPI] = {}
    for name in MAKERS:
        model = Model(repository, name, Runtime("cpu", 1), Limits(rows=8, waiting=64))
        await model.load()
        replica = Replica.local(name, f"/v2/models/{name}")
        replicas[name] = (replica, model)
        apps[replica.prefix] = routes.create(replica, model)

    async def root(scope: Any, receive: Any, send: Any) -> None:
        # As Serve's ingress: the longest prefix, which the app sees as its root path.
        prefix = next(p for p in apps if f"{scope['path']}/".startswith(f"{p}/"))
        await apps[prefix]({**scope, "root_path": prefix}, receive, send)

    config = uvicorn.Config(root, port=0, log_level="error", ws="none", lifespan="off")
    http_server = uvicorn.Server(config)
    running = asyncio.create_task(http_server.serve())
    grpc_server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Router(replicas), grpc_server)
    grpc_port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    while not http_server.started:
        await asyncio.sleep(0.01)
    port = http_server.servers[0].sockets[0].getsockname()[1]
    models = {name: model for name, (_, model) in replicas.items()}
    started.set_result(Front(f"127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", models))
    await asyncio.to_thread(stop.wait)
    http_server.should_exit = True
    await running
    await grpc_server.stop(None)
    await asyncio.gather(*(model.close() for model in models.values()))
