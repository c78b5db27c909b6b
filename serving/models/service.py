"""The gRPC side of a model: `inference.GRPCInferenceService` for one application.

In: the protocol's messages, routed here by the `application` metadata. Out: its answers. Serve
calls the methods by the RPCs' names, so a deployment inherits them from here.
"""

from typing import Any

from tritonclient.grpc import service_pb2 as pb

from serving import rpc
from serving.errors import NotFoundError
from serving.models import describe, messages
from serving.models.model import Call, Model
from serving.models.protocol import InferenceRequest, respond
from serving.models.servable import Servable
from serving.replica import Replica
from serving.tensors import Tensors
from serving.waiting import Ticket

_SERVICE = "/inference.GRPCInferenceService/"


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
            self._check(request.model_name)
            parsed = messages.read(request)
            metadata = dict(grpc_context.invocation_metadata())
            key = self._replica.authenticator.authenticate(metadata.get("authorization"))
            call = Call(
                parsed.graph,
                request.model_version or None,
                ticket(parsed, key.name, parsed.deadline()),
            )
            inputs: Tensors = parsed.inputs
            outcome = await self._model.infer(inputs, call)
            return messages.write(
                respond(parsed, self._model.name, outcome.version, outcome.outputs)
            )

        empty = pb.ModelInferResponse()
        return await self._run(grpc_context, "ModelInfer", answer, empty, "read")

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
