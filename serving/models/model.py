"""A model by name: the version that serves, and how another takes its place.

In: requests for inference, and names of versions. Out: answers, always of one version. A version
is opened and warmed beside the one that serves, takes over between two requests, and the old one
answers what it has begun before its weights are freed.
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from export import Repository
from export.errors import ExportError
from export.errors import NotFoundError as BundleNotFoundError
from serving.batcher import Limits
from serving.errors import (
    ConfigurationError,
    NotFoundError,
    OverloadedError,
    ServingError,
    UnavailableError,
)
from serving.models.servable import Outcome, Servable
from serving.session import Runtime
from serving.tensors import Tensors
from serving.waiting import Ticket

logger = logging.getLogger("tessera.models")


class BundleRefusedError(ServingError):
    """A bundle that must not be served: damaged, not understood, or not loadable."""

    status, slug, title = 409, "bundle-refused", "The bundle cannot be served"
    grpc = "FAILED_PRECONDITION"


@dataclass(frozen=True, slots=True)
class Call:
    """Which graph and version to run (None: the default, the one that serves), and how."""

    graph: str | None = None
    version: str | None = None
    ticket: Ticket = Ticket()  # noqa: RUF009 - frozen, so one instance can be shared


class Model:
    """One name of a repository; `load` before the first `infer`."""

    def __init__(self, repository: Repository, name: str, runtime: Runtime, limits: Limits) -> None:
        self._repository = repository
        self._runtime = runtime
        self._limits = limits
        self._servable: Servable | None = None
        self._loading = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self.name = name

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def loaded(self) -> bool:
        return self._servable is not None

    @property
    def servable(self) -> Servable:
        """The version that serves. Raises UnavailableError while there is none."""
        if self._servable is None:
            raise UnavailableError(f"model {self.name!r} is not loaded; load it first")
        return self._servable

    def versioned(self, version: str | None) -> Servable:
        """The version that serves, which must be `version`; NotFoundError otherwise."""
        servable = self.servable
        if version is not None and version != servable.version:
            raise NotFoundError(
                f"version {version} of model {self.name!r} is not served here, only "
                f"{servable.version}; ask for that one, or load the other"
            )
        return servable

    @property
    def crowded(self) -> bool:
        """Whether something waits, so that a newcomer may have to be refused."""
        return self._servable is not None and self._servable.crowded

    def foresee(self, inputs: Tensors, call: Call) -> None:
        """Raise the OverloadedError that `infer` would for the deadline, and count it as failed.

        Raises ServingError where `infer` would, of the inputs.
        """
        servable = self.versioned(call.version)
        try:
            servable.foresee(inputs, call.graph, call.ticket)
        except OverloadedError:
            servable.statistics.failed(0.0)
            raise

    async def infer(self, inputs: Tensors, call: Call) -> Outcome:
        """Run one request. Raises ServingError, whatever is wrong with it."""
        started = time.perf_counter()
        servable = self.versioned(call.version)
        try:
            outcome = await servable.infer(inputs, call.graph, call.ticket)
        except UnavailableError:
            if servable is self._servable or call.version is not None:
                raise
            return await self.infer(inputs, call)  # it was replaced in between
        except ServingError:
            servable.statistics.failed(time.perf_counter() - started)
            raise
        seconds = time.perf_counter() - started
        servable.statistics.succeeded(outcome.rows, seconds, outcome.stages)
        return outcome

    async def load(self, version: str = "latest") -> str:
        """Serve `version` from now on; the version's number.

        Raises NotFoundError (no such name or version) and BundleRefusedError; what served before
        goes on serving then.
        """
        async with self._loading:
            opened = await asyncio.to_thread(self._open, version)
            if opened is None:
                return self.servable.version
            old, self._servable = self._servable, opened
            self._retire(old)
            fields = {"model": self.name, "version": opened.version}
            logger.info("version serves", extra={"fields": fields})
            return opened.version

    async def unload(self) -> None:
        """Serve nothing until the next `load`."""
        async with self._loading:
            old, self._servable = self._servable, None
            self._retire(old)

    async def close(self) -> None:
        """Unload, and wait until all weights are freed."""
        await self.unload()
        await asyncio.gather(*self._closing)

    def _open(self, version: str) -> Servable | None:
        """The version opened and warm; None: it serves already."""
        try:
            bundle = self._repository.open(self.name, version)
            if self._servable is not None and self._servable.version == bundle.manifest.version:
                return None
            return Servable(bundle, self._runtime, self._limits)
        except BundleNotFoundError as error:
            raise NotFoundError(str(error)) from error
        except (ExportError, ConfigurationError) as error:
            raise BundleRefusedError(str(error)) from error

    def _retire(self, servable: Servable | None) -> None:
        if servable is not None:
            task = asyncio.create_task(servable.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
