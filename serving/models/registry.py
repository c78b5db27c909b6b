"""Which models there are, which version of each serves, and what changes that.

In: the repository's folder and the names of the model applications. Out: the repository index,
and versions loaded into and unloaded from the replicas that run.
"""

import asyncio
import logging
from collections.abc import Sequence

from export import Repository
from export.errors import ExportError
from serving.errors import InvalidRequestError, NotFoundError, ServingError
from serving.models.handles import ModelHandle

READY, UNAVAILABLE = "READY", "UNAVAILABLE"
READY_S = 5.0

logger = logging.getLogger("tessera.models")


class Registry:
    """The repository and the applications that serve from it."""

    def __init__(self, repository: Repository, names: Sequence[str]) -> None:
        self._repository = repository
        self._handles = {name: ModelHandle(name) for name in names}

    async def silent(self) -> list[str]:
        """Names of models that serve nothing now."""
        return [name for name, version in (await self._served()).items() if version is None]

    async def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """Every version of every name with its state; `ready`: only those that serve."""
        served = await self._served()

        def read() -> list[dict[str, str]]:
            names = sorted({*self._repository.names(), *served})
            return [
                _entry(name, version, served.get(name))
                for name in names
                for version in self._repository.versions(name)
            ]

        try:
            entries = await asyncio.to_thread(read)
        except ExportError as error:
            raise NotFoundError(f"the repository cannot be read: {error}") from error
        return [entry for entry in entries if not ready or entry["state"] == READY]

    async def load(self, name: str, version: str | None = None) -> str:
        """Have every replica of `name` serve `version` (None: the repository's latest).

        A version that is named is pinned, so that a replica which starts later opens it too.
        Raises NotFoundError: no application of that name, or no such version.
        """
        handle = self._handle(name)
        served = await handle.load(version or "latest")
        if version is not None:
            try:
                await asyncio.to_thread(self._repository.pin, name, served)
            except (ExportError, OSError) as error:
                logger.warning(
                    "version %s of %s serves, but is not pinned: %s", served, name, error
                )
        return served

    async def unload(self, name: str) -> None:
        """Have every replica of `name` serve nothing. Raises NotFoundError."""
        await self._handle(name).unload()

    def _handle(self, name: str) -> ModelHandle:
        handle = self._handles.get(name)
        if handle is None:
            try:
                published = bool(self._repository.versions(name))
            except ExportError:  # no name that a bundle could have
                published = False
            if published:
                raise InvalidRequestError(
                    f"model {name!r} is in the repository, but no application serves it; "
                    "deploy one first"
                )
            raise NotFoundError(f"there is no model {name!r}, only {sorted(self._handles)}")
        return handle

    async def _served(self) -> dict[str, str | None]:
        """The version that each model serves; None: none, or no answer in READY_S."""

        async def ask(handle: ModelHandle) -> str | None:
            try:
                return await asyncio.wait_for(handle.version(), READY_S)
            except (ServingError, TimeoutError):
                return None

        versions = await asyncio.gather(*(ask(handle) for handle in self._handles.values()))
        return dict(zip(self._handles, versions, strict=True))


def _entry(name: str, version: str, served: str | None) -> dict[str, str]:
    state = READY if version == served else UNAVAILABLE
    return {"name": name, "version": version, "state": state, "reason": ""}
