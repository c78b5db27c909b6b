"""The store as a ranking service uses it, with blocking calls.

In: ids, arrays, names of versions. Out: arrays. Safe to share between threads and across forks.
`AsyncFeatureStore` in async_store.py has the same methods.
"""

from typing import TYPE_CHECKING, TypeVar

from numpy.typing import ArrayLike

from . import layout as layouts
from . import methods
from .address import parse
from .core import Core
from .ids import Ids
from .keys import Keys
from .links import Links
from .lookup import Found
from .marks import BlockResult, Source
from .ops import Op
from .quick import Quick
from .retire import Progress
from .versions import Version
from .wire import Reply
from .write import WriteResult

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")


class FeatureStore:
    """Per-ad features in Redis or Valkey. Open one with `FeatureStore.connect`."""

    def __init__(self, core: Core, links: Links) -> None:
        self._core = core
        self._links = links
        self._quick = Quick(core, links)

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        namespace: str = "ads",
        near_cache_bytes: int = 0,
        layout: layouts.Name | None = None,
        expected_ads: float | None = None,
    ) -> "FeatureStore":
        """Open a store.

        `url`: redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://.
        `near_cache_bytes` bounds the cache in this process; 0 is none. `layout` is that of the
        versions that this store begins: "default" is fast, "compact" takes less than half the
        memory and needs `expected_ads`, a catalogue's size; None begins them as the active one
        is. All versions are read as they were begun, whatever is said here.
        Raises InputError, AddressError, UnavailableError, AccessError.
        """
        address = parse(url)
        links = Links(address)
        wanted = layouts.wanted(layout, expected_ads)
        core = links.run(methods.open_core(address, namespace, near_cache_bytes, wanted))
        return cls(core, links)

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: "TracebackType | None",
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, and end what runs in the background.

        A call that comes later, such as a request's in a service that shuts down, is answered over
        a connection that is opened and closed for it; nothing begins in the background any more.
        """
        self._core.close()
        self._core.join()
        self._links.close()

    def _run(self, op: Op[T]) -> T:
        return self._links.run(op)

    @property
    def namespace(self) -> str:
        """The namespace that all keys begin with."""
        return self._core.keys.namespace

    @property
    def keys(self) -> Keys:
        """Key names and hash tags, for those who keep other things about ads."""
        return self._core.keys

    @property
    def counters(self) -> dict[str, int]:
        """What happened so far: unavailable lookups, corrupt rows, near cache hits."""
        return dict(self._core.tallies.sum().events)

    @property
    def latency_us(self) -> list[int]:
        """Lookups by latency: entry i counts those of 2^(i-1) to 2^i microseconds."""
        return self._core.tallies.sum().latency_us

    def lookup(
        self, ad_ids: Ids, version: str | None = None, deadline: float | None = None
    ) -> Found:
        """Read ads: ids (n,) -> `Found` of n rows, in the ids' order, duplicates kept.

        `version` None reads the active one. `deadline` in seconds; by default 0.05, or 1 ms per
        500 ids if that is more. Faults of the data plane are rows of status UNAVAILABLE.
        Raises InputError for ids that are not integers 1..2^63-1, UnknownVersionError.
        """
        return self._quick.lookup(ad_ids, version, deadline)

    def write(
        self,
        ad_ids: Ids,
        codes: ArrayLike,
        flags: ArrayLike | None = None,
        version: str | None = None,
        sequence: ArrayLike | None = None,
        rate: float = 0.0,
    ) -> WriteResult:
        """Store ads: ids (n,), codes (n, 6) of 0..65534, flags (n,) uint16.

        `version` None is the active one (an empty store begins with "1"); another name begins or
        continues that version. `sequence` (one, or (n,), 0..2^42-1): a row whose sequence is
        lower than the stored one is ignored; None writes whatever is stored, and keeps that.
        `rate` spreads the rows over time, so many a second at most; 0 is no bound.
        Raises InputError, UnavailableError, AccessError.
        """
        return self._run(methods.write(self._core, ad_ids, codes, flags, version, sequence, rate))

    def delete(self, ad_ids: Ids, sequence: int | None = None) -> int:
        """Remove ads from every version; how many there were. A human's block mark stays.

        For 15 minutes an ad's sequence outlives it: a write with a lower one, begun before, does
        not bring it back. `sequence` is the delete's own, where it is higher; a record with a
        higher one stays.
        """
        return self._run(methods.delete(self._core, ad_ids, sequence))

    def update_flags(self, ad_ids: Ids, set_bits: int = 0, clear_bits: int = 0) -> int:
        """Set and clear flag bits, atomically per ad, in every version; how many changed."""
        return self._run(methods.update_flags(self._core, ad_ids, set_bits, clear_bits))

    def block(self, ad_ids: Ids, reason: str, source: Source = "human") -> BlockResult:
        """Take ads down, known or not: BLOCKED in every version until unblocked.

        The first 1,000 characters of the reason are kept.
        Returns when a replica has it; at once, with `replicated` 0, when there is none.
        """
        return self._run(methods.block(self._core, ad_ids, source, reason))

    def unblock(self, ad_ids: Ids, source: Source = "human") -> BlockResult:
        """Lift the mark of one source; the other's stays."""
        return self._run(methods.unblock(self._core, ad_ids, source))

    def versions(self) -> list[Version]:
        """All versions that are kept, in the order of their beginning."""
        return self._run(methods.all_versions(self._core))

    def activate(self, version: str, min_coverage: float = 0.99, force: bool = False) -> Version:
        """Serve another version to everyone.

        Raises CoverageError when it holds less than `min_coverage` of the active version's ids
        and `force` is False; UnknownVersionError.
        """
        return self._run(methods.activate(self._core, version, 0.0 if force else min_coverage))

    def rollback(self) -> Version:
        """Serve the version that was active before. Raises UnknownVersionError without one."""
        return self._run(methods.rollback(self._core))

    def retire(self, version: str, wait: bool = False, progress: Progress | None = None) -> Version:
        """Read and write a version no more, and remove its records; what it was.

        They go at a bounded rate: a small version at once, a large one in the background, or
        before this returns if `wait`; `progress` is called with records removed and records in
        all. What is left when this process ends stays `retiring`; retire it again to go on.
        Raises VersionInUseError for the active version, UnknownVersionError.
        """
        return self._run(methods.retire(self._core, version, wait, progress))

    def admin(self, *command: bytes | str | int) -> Reply:
        """One command to the node of the pointer, for tools of this package."""
        return self._run(methods.admin(self._core, *command))
