"""The gRPC side of a model: `inference.GRPCInferenceService` for one application.

In: the protocol's messages, routed here by the `application` metadata. Out: its answers. Serve
calls the methods by the RPCs' names, so a deployment inherits them from here.
"""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from serving import rpc
from serving.errors import NotFoundError, ServingError
from serving.models import describe, messages
from serving.models.model import Call, Model
from serving.models.protocol import InferenceRequest, respond
from serving.models.servable import Servable
from serving.replica import Replica
from serving.tensors import Tensors
from serving.waiting import Ticket

STREAM_WINDOW = 32
_SERVICE = "/inference.GRPCInferenceService/"
_STREAMED = f"{_SERVICE}ModelStreamInfer/request"


def ticket(request: InferenceRequest, client: str, deadline: float | None) -> Ticket:
    """How a request wishes to be served; deadline: seconds of time.monotonic()."""
    return Ticket(priority=request.priority, deadline=deadline, client=client)


class ModelService:
    """RPCs of one model. `_replica`, `_calls` and `_model` are set by the deployment."""

    _replica: Replica
    _calls: rpc.Calls
    _model: Model

    async def ServerLive(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Whether the process answers."""
        del request

        async def answer() -> Any:
            return pb.ServerLiveResponse(live=True)

        return await self._run(grpc_context, "ServerLive", answer, pb.ServerLiveResponse())

    async def ServerReady(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Whether the model of this application serves."""
        del request

        async def answer() -> Any:
            return pb.ServerReadyResponse(ready=self._model.loaded)

        return await self._run(grpc_context, "ServerReady", answer, pb.ServerReadyResponse())

    async def ModelReady(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Whether the named version serves."""

        async def answer() -> Any:
            self._check(request.name)
            serves = self._model.loaded and request.version in ("", self._model.servable.version)
            return pb.ModelReadyResponse(ready=serves)

        return await self._run(grpc_context, "ModelReady", answer, pb.ModelReadyResponse())

    async def ServerMetadata(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Name, version and extensions."""
        del request

        async def answer() -> Any:
            return messages.fill(pb.ServerMetadataResponse(), describe.server_metadata())

        empty = pb.ServerMetadataResponse()
        return await self._run(grpc_context, "ServerMetadata", answer, empty, "read")

    async def ModelMetadata(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Inputs and outputs of the default graph."""

        async def answer() -> Any:
            servable = self._named(request.name, request.version)
            document = describe.metadata(servable.manifest, servable.default_graph)
            return messages.fill(pb.ModelMetadataResponse(), document)

        empty = pb.ModelMetadataResponse()
        return await self._run(grpc_context, "ModelMetadata", answer, empty, "read")

    async def ModelConfig(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Triton's configuration of the default graph."""

        async def answer() -> Any:
            servable = self._named(request.name, request.version)
            graph, limits = servable.default_graph, self._model.limits
            document = {"config": describe.config(servable.manifest, graph, limits)}
            return messages.fill(pb.ModelConfigResponse(), document)

        empty = pb.ModelConfigResponse()
        return await self._run(grpc_context, "ModelConfig", answer, empty, "read")

    async def ModelStatistics(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """This replica's counts and times."""

        async def answer() -> Any:
            servable = self._named(request.name or self._model.name, request.version)
            stats = servable.statistics.document(self._model.name, servable.version)
            return messages.fill(pb.ModelStatisticsResponse(), {"model_stats": [stats]})

        empty = pb.ModelStatisticsResponse()
        return await self._run(grpc_context, "ModelStatistics", answer, empty, "read")

    async def ModelInfer(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """One request for inference."""

        async def answer() -> Any:
            return await self._infer(request, self._client(grpc_context))

        empty = pb.ModelInferResponse()
        return await self._run(grpc_context, "ModelInfer", answer, empty, "read")

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterable[Any], grpc_context: Any
    ) -> AsyncIterator[Any]:
        """Requests over one stream: each gets one answer, in order; a refusal ends only itself."""

        async def answer() -> str:
            return self._client(grpc_context)

        client = await self._run(grpc_context, "ModelStreamInfer", answer, None, "read")
        if client is None:
            return
        # A window of them is under way at a time, so that they can share batches.
        window = asyncio.Semaphore(STREAM_WINDOW)
        answers: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
        tasks: set[asyncio.Task[Any]] = set()

        async def read() -> None:
            try:
                async for request in requests:
                    await window.acquire()
                    task = asyncio.create_task(self._streamed(request, client))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    answers.put_nowait(task)
            finally:  # a stream that breaks off ends as well
                answers.put_nowait(None)

        reader = asyncio.create_task(read())
        try:
            while (task := await answers.get()) is not None:
                yield await task
                window.release()
            await reader
        finally:  # the client has left, or everything is answered
            for task in (reader, *tasks):
                task.cancel()

    async def _streamed(self, request: Any, client: str) -> Any:
        started, refused = time.perf_counter(), None
        try:
            found = await self._infer(request, client)
            answer = pb.ModelStreamInferResponse(infer_response=found)
        except ServingError as error:
            refused = error
            empty = pb.ModelInferResponse(id=request.id, model_name=request.model_name)
            answer = pb.ModelStreamInferResponse(error_message=error.detail, infer_response=empty)
        # The stream itself is one call; an alert on errors must see those inside it.
        self._calls.count(_STREAMED, time.perf_counter() - started, refused)
        return answer

    async def _infer(self, request: Any, client: str) -> Any:
        self._check(request.model_name)
        parsed = messages.read(request)
        call = Call(
            parsed.graph,
            request.model_version or None,
            ticket(parsed, client, parsed.deadline()),
        )
        inputs: Tensors = parsed.inputs
        outcome = await self._model.infer(inputs, call)
        return messages.write(respond(parsed, self._model.name, outcome.version, outcome.outputs))

    def _client(self, context: Any) -> str:
        """The name of the caller's key, which has been checked."""
        metadata = dict(context.invocation_metadata())
        return self._replica.authenticator.authenticate(metadata.get("authorization")).name

    async def _run(
        self, context: Any, method: str, answer: Any, empty: Any, scope: Any = None
    ) -> Any:
        return await self._calls.run(context, _SERVICE + method, scope, answer, empty)

    def _check(self, name: str) -> None:
        if name != self._model.name:
            raise NotFoundError(
                f"application {self._model.name!r} serves the model of that name, not {name!r}; "
                "the metadata `application` chooses the model"
            )

    def _named(self, name: str, version: str) -> Servable:
        self._check(name)
        return self._model.versioned(version or None)
