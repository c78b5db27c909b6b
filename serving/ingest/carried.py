"""Which flags of an ad hold when it is sent again: what a human or a verdict said stays.

In: what the store answers about an ad. Out: the flags that a new record begins with. Lookups hide
the flags of a blocked ad: it waits for its verdict anew, and stays blocked while it does.
"""

from collections.abc import Sequence

from feature_store import AsyncFeatureStore, Flag, Found, Status
from feature_store.errors import UnavailableError, UnknownVersionError

READ_S = 1.0


async def stored_flags(
    store: AsyncFeatureStore, ad_ids: Sequence[int], version: str
) -> list[Flag | None]:
    """Flags of each ad in `version`, or else in the active one; None where there is no record.

    Raises FeatureStoreError.
    """
    active = await store.lookup(ad_ids, deadline=READ_S)
    found = [_flags(active, row) for row in range(len(ad_ids))]
    if active.version == version:
        return found
    try:
        own = await store.lookup(ad_ids, version=version, deadline=READ_S)
    except UnknownVersionError:  # its first ads are being written
        return found
    flags = [_flags(own, row) for row in range(len(ad_ids))]
    return [mine if mine is not None else other for mine, other in zip(flags, found, strict=True)]


async def recorded(store: AsyncFeatureStore, ad_id: int, version: str) -> bool:
    """Whether an ad has a record in `version` itself. Raises FeatureStoreError."""
    try:
        found = await store.lookup([ad_id], version=version, deadline=READ_S)
    except UnknownVersionError:
        return False
    return _flags(found, 0) is not None


def carried(flags: Flag | None, *, same_content: bool) -> Flag:
    """Flags of a record that is written now, where `flags` were stored.

    A human's word holds for whatever is sent under the id; a verdict's for the same content.
    Otherwise the ad waits for a verdict.
    """
    if flags is not None and (Flag.HUMAN in flags or same_content):
        return flags
    return Flag.PENDING


def _flags(found: Found, row: int) -> Flag | None:
    status = found.status[row]
    if status == Status.UNAVAILABLE:
        raise UnavailableError(f"the store did not answer within {READ_S:.0f} s; try again")
    if status == Status.MISS:
        return None
    return Flag.PENDING if status == Status.BLOCKED else Flag(int(found.flags[row]))
