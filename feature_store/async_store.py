"""The store with asyncio: the methods of `FeatureStore`, to be awaited.

In and out: as in store.py, which says what each method does. All logic is in the operations that
both share.
"""

import asyncio
from collections.abc import Generator
from types import TracebackType
from typing import Any, TypeVar

from numpy.typing import ArrayLike

from . import layout as layouts
from . import methods
from .address import parse
from .aio import AsyncLinks
from .core import Core
from .errors import UnavailableError
from .ids import Ids
from .keys import Keys
from .layout import Wanted
from .lookup import Found
from .marks import BlockResult, Source
from .ops import Op
from .retire import Progress
from .versions import Version
from .write import WriteResult

T = TypeVar("T")


class AsyncFeatureStore:
    """`FeatureStore` for asyncio.

    `store = await AsyncFeatureStore.connect(url)`, or `async with AsyncFeatureStore.connect(url)`.
    """

    def __init__(self, url: str, namespace: str, near_cache_bytes: int, wanted: Wanted) -> None:
        address = parse(url)
        self._links = AsyncLinks(address)
        self._keys = Keys(namespace)
        self._open = (address, namespace, near_cache_bytes, wanted)
        self._opened: Core | None = None

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        namespace: str = "ads",
        near_cache_bytes: int = 0,
        layout: layouts.Name | None = None,
        expected_ads: float | None = None,
    ) -> "AsyncFeatureStore":
        """See FeatureStore.connect. To be awaited, or entered with `async with`."""
        return cls(url, namespace, near_cache_bytes, layouts.wanted(layout, expected_ads))

    def __await__(self) -> Generator[Any, None, "AsyncFeatureStore"]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> "AsyncFeatureStore":
        if self._opened is None:
            try:
                self._opened = await self._links.run(methods.open_core(*self._open))
            except BaseException:
                self._links.close()  # what had been opened before it failed
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """See FeatureStore.close."""
        try:
            if self._opened is not None:
                self._opened.close()
                if self._opened.threads():
                    await asyncio.to_thread(self._opened.join)
        finally:
            self._links.close()

    async def _run(self, op: Op[T]) -> T:
        return await self._links.run(op)

    @property
    def _core(self) -> Core:
        if self._opened is None:
            raise UnavailableError("not connected: write `await AsyncFeatureStore.connect(url)`")
        return self._opened

    @property
    def namespace(self) -> str:
        """The namespace that all keys begin with."""
        return self._keys.namespace

    @property
    def keys(self) -> Keys:
        """Key names and hash tags, for those who keep other things about ads."""
        return self._keys

    @property
    def counters(self) -> dict[str, int]:
        """See FeatureStore.counters."""
        return dict(self._core.tallies.sum().events)

    @property
    def latency_us(self) -> list[int]:
        """Lookups by latency: entry i counts those of 2^(i-1) to 2^i microseconds."""
        return self._core.tallies.sum().latency_us

    async def lookup(
        self, ad_ids: Ids, version: str | None = None, deadline: float | None = None
    ) -> Found:
        """See FeatureStore.lookup."""
        return await self._run(methods.lookup(self._core, ad_ids, version, deadline))

    async def write(
        self,
        ad_ids: Ids,
        codes: ArrayLike,
        flags: ArrayLike | None = None,
        version: str | None = None,
        sequence: ArrayLike | None = None,
        rate: float = 0.0,
    ) -> WriteResult:
        """See FeatureStore.write."""
        return await self._run(
            methods.write(self._core, ad_ids, codes, flags, version, sequence, rate)
        )

    async def delete(self, ad_ids: Ids, sequence: int | None = None) -> int:
        """See FeatureStore.delete."""
        return await self._run(methods.delete(self._core, ad_ids, sequence))

    async def update_flags(self, ad_ids: Ids, set_bits: int = 0, clear_bits: int = 0) -> int:
        """See FeatureStore.update_flags."""
        return await self._run(methods.update_flags(self._core, ad_ids, set_bits, clear_bits))

    async def block(self, ad_ids: Ids, reason: str, source: Source = "human") -> BlockResult:
        """See FeatureStore.block."""
        return await self._run(methods.block(self._core, ad_ids, source, reason))

    async def unblock(self, ad_ids: Ids, source: Source = "human") -> BlockResult:
        """See FeatureStore.unblock."""
        return await self._run(methods.unblock(self._core, ad_ids, source))

    async def versions(self) -> list[Version]:
        """See FeatureStore.versions."""
        return await self._run(methods.all_versions(self._core))

    async def activate(
        self, version: str, min_coverage: float = 0.99, force: bool = False
    ) -> Version:
        """See FeatureStore.activate."""
        coverage = 0.0 if force else min_coverage
        return await self._run(methods.activate(self._core, version, coverage))

    async def rollback(self) -> Version:
        """See FeatureStore.rollback."""
        return await self._run(methods.rollback(self._core))

    async def retire(
        self, version: str, wait: bool = False, progress: Progress | None = None
    ) -> Version:
        """See FeatureStore.retire."""
        return await self._run(methods.retire(self._core, version, wait, progress))
