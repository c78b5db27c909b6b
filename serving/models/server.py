"""The server level of the Open Inference Protocol: `/v2`, its health, and the repository.

In: an `AppArgs` dictionary whose `options` name the models that are deployed. Out: one
deployment, `models`. Loading opens a version inside the replicas that run, since any change of
replicas would reload the ingress.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from tritonclient.grpc import service_pb2 as pb

from serving import bundles, http, rpc, unserved
from serving.config import AppArgs
from serving.errors import InvalidRequestError
from serving.models import describe, messages
from serving.models.registry import Registry
from serving.models.routes import NotReadyError
from serving.replica import Replica, bind

BODY_LIMIT_BYTES = 1 << 20
HEALTH = frozenset({"/health/live", "/health/ready"})


class ServerOptions(BaseModel):
    """`options` of the server-level application."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...]


class IndexRequest(BaseModel):
    """Body of a repository index; `ready`: only what serves."""

    repository_name: str | None = None
    ready: bool = False


class LoadRequest(BaseModel):
    """Body of a load: `parameters.version` names a version, the repository's latest otherwise."""

    parameters: dict[str, str] = Field(default={}, examples=[{"version": "1"}])


@serve.deployment(name="models")
@serve.ingress()
@unserved.complete
class ServerDeployment:
    """One replica of the server level."""

    async def __init__(self, args: dict[str, Any]) -> None:  # type: ignore[misc] # Serve awaits it
        parsed = AppArgs.model_validate(args)
        self._replica = Replica.open(parsed)
        self._calls = rpc.Calls(self._replica)
        models = ServerOptions.model_validate(parsed.options).models
        self._registry = Registry(bundles.repository(self._replica.settings), models)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create(self._replica, self._registry)

    async def ServerLive(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Whether the process answers."""
        del request

        async def answer() -> Any:
            return pb.ServerLiveResponse(live=True)

        return await self._run(grpc_context, "ServerLive", answer, None)

    async def ServerReady(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Whether every model serves."""
        del request

        async def answer() -> Any:
            return pb.ServerReadyResponse(ready=not await self._registry.silent())

        return await self._run(grpc_context, "ServerReady", answer, None)

    async def ServerMetadata(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Name, version and extensions."""
        del request

        async def answer() -> Any:
            return messages.fill(pb.ServerMetadataResponse(), describe.server_metadata())

        return await self._run(grpc_context, "ServerMetadata", answer, "read")

    async def RepositoryIndex(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Every version of every name, and whether it serves."""

        async def answer() -> Any:
            models = await self._registry.index(ready=request.ready)
            return messages.fill(pb.RepositoryIndexResponse(), {"models": models})

        return await self._run(grpc_context, "RepositoryIndex", answer, "admin")

    async def RepositoryModelLoad(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Serve another version of a model."""

        async def answer() -> Any:
            version = _version({n: p.string_param for n, p in request.parameters.items()})
            await self._registry.load(request.model_name, version)
            return pb.RepositoryModelLoadResponse()

        return await self._run(grpc_context, "RepositoryModelLoad", answer, "admin")

    async def RepositoryModelUnload(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        """Serve no version of a model until it is loaded again."""

        async def answer() -> Any:
            await self._registry.unload(request.model_name)
            return pb.RepositoryModelUnloadResponse()

        return await self._run(grpc_context, "RepositoryModelUnload", answer, "admin")

    async def _run(self, context: Any, method: str, answer: Any, scope: Any) -> Any:
        empty = getattr(pb, f"{method}Response")()
        rpc_name = f"/inference.GRPCInferenceService/{method}"
        return await self._calls.run(context, rpc_name, scope, answer, empty)


def create(replica: Replica, registry: Registry) -> FastAPI:
    """The HTTP app of the server level."""

    async def ready() -> None:
        if silent := await registry.silent():
            raise NotReadyError(f"not ready: {', '.join(silent)}")

    app = http.create_app(replica, body_limit_bytes=BODY_LIMIT_BYTES, ready=ready, public=HEALTH)
    read, admin = [http.requires("read")], [http.requires("admin")]

    @app.get("", dependencies=read)
    async def metadata() -> dict[str, Any]:
        """Name, version and extensions."""
        return describe.server_metadata()

    @app.get("/health/live", tags=["health"])
    async def live() -> Response:
        """200 while the process answers."""
        return Response()

    @app.get("/health/ready", tags=["health"])
    async def is_ready() -> Response:
        """200 when every model serves, 400 when not."""
        await ready()
        return Response()

    @app.post(
        "/repository/index",
        dependencies=admin,
        openapi_extra=http.document_body(IndexRequest, serving={"ready": True}),
    )
    async def index(request: Request) -> JSONResponse:
        """Every version of every name, and whether it serves."""
        asked = http.validate(IndexRequest, await _body(request))
        return JSONResponse(await registry.index(ready=asked.ready))

    @app.post(
        "/repository/models/{name}/load",
        dependencies=admin,
        openapi_extra=http.document_body(LoadRequest, latest={"parameters": {}}),
    )
    async def load(name: str, request: Request) -> dict[str, str]:
        """Open a version in the running replicas, warm it, swap it in, close the old one."""
        asked = http.validate(LoadRequest, await _body(request))
        served = await registry.load(name, _version(asked.parameters))
        return {"name": name, "version": served}

    @app.post("/repository/models/{name}/unload", dependencies=admin)
    async def unload(name: str) -> dict[str, str]:
        """Serve no version of a model until it is loaded again."""
        await registry.unload(name)
        return {"name": name}

    return app


def _version(parameters: Mapping[str, str]) -> str | None:
    """The version that a load names; a configuration or files of the caller's own are refused."""
    if unknown := sorted(set(parameters) - {"version"}):
        raise InvalidRequestError(
            f"parameters: found {', '.join(unknown)[:200]}; expected `version` alone: a bundle is "
            "served as it was published"
        )
    return parameters.get("version") or None


async def _body(request: Request) -> dict[str, Any]:
    """The JSON body; clients of the protocol may send none."""
    body = await request.body()
    return http.parse_json(body) if body.strip() else {}


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of `args` (AppArgs)."""
    application: serve.Application = bind(ServerDeployment, args)
    return application
