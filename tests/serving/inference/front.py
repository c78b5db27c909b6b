"""Models behind real HTTP and gRPC servers in a thread, without Ray.

The paths and the metadata are those of the deployment; a few lines stand for Serve's ingress.
"""

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event
from typing import Any

import grpc
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from tritonclient.grpc import service_pb2_grpc

from export import Repository
from serving import rpc
from serving.batcher import Limits
from serving.models import routes
from serving.models.door import Door
from serving.models.model import Model
from serving.models.service import ModelService
from serving.one_write import OneWrite
from serving.replica import Replica
from serving.session import Runtime


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


def _mounted(app: FastAPI, prefix: str) -> ASGIApp:
    """The app sees its prefix as its root path, as behind Serve."""

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": prefix}, receive, send)

    return mounted


async def serve(repository: Repository, started: "Future[Front]", stop: Event) -> None:
    replicas: dict[str, tuple[Replica, Model]] = {}
    apps: dict[str, Door] = {}
    for name in repository.names():
        model = Model(repository, name, Runtime("cpu", 1), Limits(rows=8, waiting=64))
        await model.load()
        replica = Replica.local(name, f"/v2/models/{name}")
        replicas[name] = (replica, model)
        app = _mounted(routes.create(replica, model), replica.prefix)
        apps[replica.prefix] = Door(app, replica, model)

    async def root(scope: Any, receive: Any, send: Any) -> None:
        # As Serve's ingress: the longest prefix.
        prefix = next(p for p in apps if f"{scope['path']}/".startswith(f"{p}/"))
        await apps[prefix](scope, receive, send)

    config = uvicorn.Config(OneWrite(root), port=0, log_level="error", ws="none", lifespan="off")
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
