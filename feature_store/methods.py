"""The public methods as operations: arguments checked, then the rooms that do the work.

In: what callers of either store give. Out: operations that both stores run.
"""

import time
from numbers import Real

from numpy.typing import ArrayLike

from . import catalog, marks, single, topology, versions
from . import lookup as lookups
from . import retire as retiring
from . import write as writes
from .address import Address
from .core import TIMEOUT_S, Core, Job, run_jobs
from .errors import AddressError, InputError
from .ids import Ids, check_codes, check_flags, check_ids, check_sequence
from .keys import Keys
from .layout import Wanted
from .lookup import Found
from .ops import Op, ask
from .wire import Reply, command
from .write import Rows, WriteResult

rollback = versions.rollback


def open_core(address: Address, namespace: str, near_cache_bytes: int, wanted: Wanted) -> Op[Core]:
    """Find the servers and read the versions. Raises what stops that."""
    keys = Keys(namespace)
    if not isinstance(near_cache_bytes, int) or near_cache_bytes < 0:
        raise InputError(f"near_cache_bytes must be 0 or more; found {near_cache_bytes!r}")
    deadline = time.monotonic() + TIMEOUT_S
    found = yield from topology.discover(address, None, deadline)
    try:
        core = Core(address, keys, found, near_bytes=near_cache_bytes, wanted=wanted)
    except (MemoryError, ValueError, OverflowError) as error:
        raise InputError(f"near_cache_bytes must fit in memory; {error}") from error
    if address.kind != "cluster":
        yield from _meet(core, deadline)
    core.view = yield from catalog.refresh(keys, core.first, deadline)
    if core.near is not None:
        core.near.start()
    return core


def _meet(core: Core, deadline: float) -> Op[None]:
    """Learn what the server is. A member of a cluster would answer for its own slots only."""
    payload = command("INFO", "server") + command("INFO", "cluster")
    about, cluster = yield from ask(core.first, payload, 2, deadline)
    if isinstance(cluster, bytes) and b"cluster_enabled:1" in cluster:
        raise AddressError(
            f"{core.first} is a member of a cluster: write redis+cluster://{core.first} (and "
            "rediss+cluster:// for rediss://)"
        )
    if isinstance(about, bytes):
        core.fetched_ahead = single.fetched_ahead(about)


REASON = 1000  # characters that are kept


def lookup(
    core: Core,
    ad_ids: Ids,
    version: str | None,
    deadline: float | None,
    began: float | None = None,
) -> Op[Found]:
    """See FeatureStore.lookup. `began`, in time.monotonic seconds: None is now."""
    ids = check_ids(ad_ids)
    if version is not None and not isinstance(version, str):
        raise InputError(f"version must be a name or None; found {version!r}")
    seconds = lookups.default_deadline(len(ids)) if deadline is None else deadline
    if not _real(seconds) or not seconds > 0:
        raise InputError(f"deadline must be a number of seconds over 0; found {deadline!r}")
    began = time.monotonic() if began is None else began
    found = yield from lookups.lookup(
        core, ids, version, began + float(min(seconds, lookups.LONGEST_S))
    )
    core.count_lookup(len(ids), time.monotonic() - began)
    return found


def write(
    core: Core,
    ad_ids: Ids,
    codes: ArrayLike,
    flags: ArrayLike | None,
    version: str | None,
    sequence: ArrayLike | None,
    rate: float,
) -> Op[WriteResult]:
    """See FeatureStore.write."""
    ids = check_ids(ad_ids)
    n = len(ids)
    if not _real(rate) or not rate >= 0:
        raise InputError(f"rate must be 0 or more rows per second; found {rate!r}")
    rows = Rows(ids, check_codes(codes, n), check_flags(flags, n), check_sequence(sequence, n))
    written = yield from writes.write(core, rows, version, float(rate))
    core.forget(ids)
    return written


def delete(core: Core, ad_ids: Ids, sequence: int | None) -> Op[int]:
    """See FeatureStore.delete."""
    check_sequence(sequence, 1)
    ids = check_ids(ad_ids)
    deleted = yield from writes.delete(core, ids, sequence)
    core.forget(ids)
    return deleted


def update_flags(core: Core, ad_ids: Ids, set_bits: int, clear_bits: int) -> Op[int]:
    """See FeatureStore.update_flags."""
    ids = check_ids(ad_ids)
    for bits in (set_bits, clear_bits):
        if not isinstance(bits, int) or not 0 <= bits <= 0xFFFF:
            raise InputError(f"flag bits must be 0..65535; found {bits!r}")
    changed = yield from writes.update_flags(core, ids, int(set_bits), int(clear_bits))
    core.forget(ids)
    return changed


def block(core: Core, ad_ids: Ids, source: str, reason: str) -> Op[marks.BlockResult]:
    """See FeatureStore.block."""
    if not isinstance(reason, str):
        raise InputError(f"reason must be text; found {reason!r}")
    try:
        reason.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"reason must be Unicode text; found a lone surrogate: {error}") from error
    return (yield from _mark(core, ad_ids, source, reason))


def unblock(core: Core, ad_ids: Ids, source: str) -> Op[marks.BlockResult]:
    """See FeatureStore.unblock."""
    return (yield from _mark(core, ad_ids, source, None))


def _mark(core: Core, ad_ids: Ids, source: str, reason: str | None) -> Op[marks.BlockResult]:
    """Set the mark of a source for a reason; None: clear it."""
    ids = check_ids(ad_ids)
    if source not in marks.BITS:
        raise InputError(f"source must be one of {', '.join(marks.BITS)}; found {source!r}")
    bits = marks.BITS[source]
    result = yield from marks.mark(core, ids, bits, reason is None, (reason or "")[:REASON])
    core.forget(ids)
    return result


def activate(core: Core, version: str, min_coverage: float) -> Op[versions.Version]:
    """See FeatureStore.activate."""
    if not _real(min_coverage) or not 0 <= min_coverage <= 1:
        raise InputError(f"min_coverage must be a share, 0 to 1; found {min_coverage!r}")
    return (yield from versions.activate(core, version, float(min_coverage)))


def retire(
    core: Core, version: str, wait: bool, progress: retiring.Progress | None
) -> Op[versions.Version]:
    """See FeatureStore.retire."""
    found = yield from retiring.retire(core, version)
    until = time.monotonic() + retiring.BUDGET_S

    def stop() -> bool:
        return not wait and time.monotonic() > until

    if not (yield from retiring.remove(core, found, stop, progress)):
        retiring.go_on(core, found)
    return found


def all_versions(core: Core) -> Op[list[versions.Version]]:
    """See FeatureStore.versions."""
    return (yield from versions.versions(core))


def admin(core: Core, *parts: bytes | str | int) -> Op[Reply]:
    """One command to the node of the pointer."""
    job = Job(0, command(*parts))
    return (yield from run_jobs(core, [job], time.monotonic() + TIMEOUT_S))[0]


def _real(value: object) -> bool:
    """Whether a value is a real number, numpy's included."""
    return isinstance(value, (int, float, Real))  # the first two first: quicker than asking an ABC
