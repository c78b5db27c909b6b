"""Ray Serve's side of one model: HTTP, gRPC and handles over the same `Model`.

In: an `AppArgs` dictionary whose `options` are `ModelOptions`. Out: one deployment, `model`. Each
replica holds one version of the bundle; the constructor warms it up, which gates readiness.
"""

import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from starlette.middleware import Middleware

from serving import bundles, outermost, rpc, unserved
from serving.batcher import Limits
from serving.config import AppArgs
from serving.models import routes
from serving.models.door import Door
from serving.models.model import Call, Model
from serving.models.servable import BUCKETS
from serving.models.service import ModelService
from serving.one_write import OneWrite
from serving.providers import Device
from serving.replica import Replica, bind
from serving.session import USUAL_ROWS, Runtime
from serving.tensors import Tensors
from serving.waiting import DEFAULT_PRIORITY, Ticket


class ModelOptions(BaseModel):
    """`options` of a model application.

    version: the one to open first. threads: of one run; half of the cores otherwise, and two runs
    at once (`cores.plan`). A batch holds at most batch_rows and, where rows have open axes,
    batch_cost of their elements (tokens); without batch_rows the warm-up finds how many. The queue
    holds waiting_rows and waiting_bytes. engines: folder in which device `tensorrt` keeps what it
    has built.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: str = "latest"
    device: Device = "auto"
    threads: int | None = Field(None, ge=1)
    batch_rows: int | None = Field(None, ge=1, le=4096)
    batch_cost: int = Field(8192, ge=1)
    waiting_rows: int = Field(16_384, ge=1)
    waiting_bytes: int = Field(256 << 20, ge=1)
    engines: Path | None = None

    @property
    def runtime(self) -> Runtime:
        rows = self.batch_rows or USUAL_ROWS
        return Runtime(self.device, self.threads, rows, self.engines)

    @property
    def limits(self) -> Limits:
        # TensorRT builds for a range of sizes, and every size in it costs memory.
        most = USUAL_ROWS if self.device == "tensorrt" else BUCKETS[-1]
        rows = self.batch_rows or most
        return Limits(rows, self.batch_cost, self.waiting_rows, self.waiting_bytes)


@serve.deployment(name="model")
@serve.ingress()
@unserved.complete
class ModelDeployment(ModelService):
    """One replica of one model."""

    async def __init__(self, args: dict[str, Any]) -> None:  # type: ignore[misc] # Serve awaits it
        parsed = AppArgs.model_validate(args)
        options = ModelOptions.model_validate(parsed.options)
        self._replica = Replica.open(parsed)
        self._calls = rpc.Calls(self._replica)
        self._model = Model(
            bundles.repository(self._replica.settings),
            options.model,
            options.runtime,
            options.limits,
        )
        await self._model.load(options.version)
        door = Middleware(Door, replica=self._replica, model=self._model)
        outermost.register(door)
        outermost.register(Middleware(OneWrite))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return routes.create(self._replica, self._model)

    async def infer(
        self,
        tensors: Tensors,
        *,
        graph: str | None = None,
        version: str | None = None,
        timeout_s: float | None = None,
        priority: int = DEFAULT_PRIORITY,
        client: str = "",
    ) -> Tensors:
        """Run a graph for another application, by handle.

        version: the one that must serve (NotFoundError otherwise). timeout_s: seconds from now.
        client: whose turn it takes (see `batcher`).
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        ticket = Ticket(priority=priority, deadline=deadline, client=client)
        return (await self._model.infer(tensors, Call(graph, version, ticket))).outputs

    async def version(self) -> str:
        """The version that serves. Raises UnavailableError."""
        return self._model.servable.version

    async def load(self, version: str) -> str:
        """Open, warm, swap, close the old one; broadcast to every replica by the server level."""
        return await self._model.load(version)

    async def unload(self) -> None:
        """Serve nothing until the next load."""
        await self._model.unload()


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of `args` (AppArgs)."""
    application: serve.Application = bind(ModelDeployment, args)
    return application
