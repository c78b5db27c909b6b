"""Requests for inference, laid out before the clock runs.

In: a front, a model's graph. Out: calls: "ok", or the status that came instead, by gRPC's names.
Tensors travel as the stock client sends them: over HTTP as binary tensors after the JSON, over gRPC
as raw contents.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import orjson
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

from export import Repository
from export.manifest import Graph
from serving.models.rest import HEADER_LENGTH
from serving.models.servable import default_graph

from ..http1 import Http
from ..load import Request
from .served import Front

INFER_RPC = "/inference.GRPCInferenceService/ModelInfer"
LIVE_RPC = "/inference.GRPCInferenceService/ServerLive"
STATISTICS_RPC = "/inference.GRPCInferenceService/ModelStatistics"
VARIANTS = 16
CHANNELS = 4
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1)]
_TYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
_OUTCOMES = {200: "ok", 429: "RESOURCE_EXHAUSTED", 504: "DEADLINE_EXCEEDED"}
OPEN_AXIS = 16  # any dynamic axis but the batch


def graph_of(repository: Repository, model: str) -> tuple[str, Graph]:
    """Name and signature of a model's default graph."""
    manifest = repository.open(model).manifest
    name = default_graph(manifest)
    return name, manifest.graphs[name]


def feed(graph: Graph, rows: int, random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Random inputs of `rows` rows by name; whole numbers are small, tables have that many rows."""
    found = {}
    for spec in graph.inputs:
        shape = [
            s if isinstance(s, int) else OPEN_AXIS if i else rows for i, s in enumerate(spec.shape)
        ]
        if np.dtype(spec.dtype).kind == "f":
            found[spec.name] = random.standard_normal(shape).astype(spec.dtype)
        else:
            top = 256 if spec.dtype == "uint8" else 100
            found[spec.name] = random.integers(0, top, shape).astype(spec.dtype)
    return found


def binary(tensors: Mapping[str, NDArray[Any]], timeout_s: float | None) -> tuple[bytes, int]:
    """A body of the binary tensor extension, and the length of the JSON that leads it."""
    inputs = [
        {
            "name": name,
            "datatype": _TYPES[str(array.dtype)],
            "shape": list(array.shape),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in tensors.items()
    ]
    parameters: dict[str, Any] = {"binary_data_output": True}
    if timeout_s is not None:
        parameters["timeout"] = int(timeout_s * 1e6)
    head = orjson.dumps({"inputs": inputs, "parameters": parameters})
    return head + b"".join(array.tobytes() for array in tensors.values()), len(head)


def message(model: str, tensors: Mapping[str, NDArray[Any]], timeout_s: float | None) -> bytes:
    """A ModelInfer request. timeout_s: after which nobody waits for the answer."""
    request = pb.ModelInferRequest(model_name=model)
    for name, array in tensors.items():
        request.inputs.add(name=name, datatype=_TYPES[str(array.dtype)], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    if timeout_s is not None:
        request.parameters["timeout"].int64_param = int(timeout_s * 1e6)
    return bytes(request.SerializeToString())


class Client:
    """Calls to one front."""

    def __init__(self, front: Front, repository: Repository) -> None:
        import grpc.aio

        self._http = Http(front.http)
        self._channels = [
            grpc.aio.insecure_channel(front.grpc, options=[*_OPTIONS, ("number", i)])
            for i in range(CHANNELS)
        ]
        self._repository = repository

    async def close(self) -> None:
        """Disconnect."""
        self._http.close()
        for channel in self._channels:
            await channel.close()

    def infer(self, model: str, rows: int, timeout_s: float | None = None) -> Request:
        """Requests of `rows` rows over HTTP, VARIANTS different ones."""
        return self.infer_these(model, self._feeds(model, rows), timeout_s)

    def infer_these(
        self, model: str, feeds: Sequence[Mapping[str, NDArray[Any]]], timeout_s: float | None
    ) -> Request:
        """Requests with these tensors over HTTP, in turn."""
        requests = []
        for tensors in feeds:
            body, length = binary(tensors, timeout_s)
            path = f"/v2/models/{model}/infer"
            whole = self._http.request("POST", path, body, "application/octet-stream")
            mark = f"\r\n{HEADER_LENGTH}: {length}\r\n\r\n".encode()
            requests.append(whole.replace(b"\r\n\r\n", mark, 1))
        return self.post(requests)

    def infer_grpc(self, model: str, rows: int) -> Request:
        """The same over gRPC."""
        bodies = [message(model, tensors, None) for tensors in self._feeds(model, rows)]
        return self.call(INFER_RPC, model, bodies)

    def post(self, requests: list[bytes]) -> Request:
        """Whole HTTP requests: their outcomes."""

        async def call(number: int) -> str:
            try:
                status, _ = await self._http.send(requests[number % len(requests)])
            except (OSError, asyncio.IncompleteReadError) as error:
                return type(error).__name__
            return _OUTCOMES.get(status, f"HTTP {status}")

        return call

    def rows_of(self, model: str) -> list[bytes]:
        """Raw bytes of one row of a model's first input, as the peers take it."""
        return [next(iter(tensors.values())).tobytes() for tensors in self._feeds(model, 1)]

    def _feeds(self, model: str, rows: int) -> list[dict[str, NDArray[Any]]]:
        random = np.random.default_rng(rows)
        _, graph = graph_of(self._repository, model)
        return [feed(graph, rows, random) for _ in range(VARIANTS)]

    def call(self, rpc: str, application: str, bodies: list[bytes]) -> Request:
        """Any method of an application, bytes in: its outcome."""
        methods = [channel.unary_unary(rpc) for channel in self._channels]
        metadata = (("application", application),)

        async def call(number: int) -> str:
            body = bodies[number % len(bodies)]
            try:
                await methods[number % CHANNELS](body, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                return str(error.code().name)
            return "ok"

        return call

    async def computed_rows(self, model: str) -> int:
        """Rows that the model has computed so far, by its own count."""
        method = self._channels[0].unary_unary(STATISTICS_RPC)
        body = pb.ModelStatisticsRequest(name=model).SerializeToString()
        answer = await method(body, metadata=(("application", model),))
        found = pb.ModelStatisticsResponse.FromString(answer).model_stats[0]
        return int(found.inference_count)
