"""What becomes of an ad in the store: content, record, owed verdict, in the order that is safe.

In: encoded ads, or the end of one. Out: all of it in Redis. Every change has a sequence from the
moment it arrived. Content changes first, atomically and only forward; who has changed a record
looks at the content again and makes the record what that says. Whoever is last does so after
everyone's content is in place, so that both agree whatever ran beside it (decision 0055).
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from redis.exceptions import RedisError

from feature_store import AsyncFeatureStore, Flag
from feature_store.errors import FeatureStoreError
from serving.errors import UnavailableError
from serving.ingest.carried import carried, recorded, stored_flags
from serving.ingest.content import Content, ContentStore, State

_Result = TypeVar("_Result")
BELIEVED_S = 10.0  # that there is an active version
ATTEMPTS = 8  # each means that somebody changed the ad within a round trip


class Owes(Protocol):
    """Where risk verdicts are asked for; nobody waits for them here."""

    async def add(self, ad_ids: Sequence[int], /) -> None:
        """Owe verdicts for ads whose content is written. Raises redis.RedisError."""

    async def remove(self, ad_id: int, /) -> None:
        """The ad has ended. Raises redis.RedisError."""


@dataclass(frozen=True, slots=True)
class Stores:
    """The places that an ad is kept in."""

    records: AsyncFeatureStore
    contents: ContentStore
    owed: Owes


class Writer:
    """Changes ads in one store. All methods raise UnavailableError while it is away."""

    def __init__(self, stores: Stores) -> None:
        self._records = stores.records
        self._contents = stores.contents
        self._owed = stores.owed
        self._looked: float | None = None  # when there was an active version, monotonic seconds

    async def ready(self) -> None:
        """Raises UnavailableError while the store does not answer."""
        await stored(self._records.versions())

    async def sequences(self, ad_ids: Sequence[int]) -> list[int]:
        """Places in the order of changes, one an ad; taken when a change arrives."""
        return await stored(self._contents.sequences(ad_ids)) if ad_ids else []

    async def write(self, contents: Sequence[Content]) -> list[Flag]:
        """Write ads of one version; the flags of each. One that a later change overtook is left."""
        ids, version = [content.ad.ad_id for content in contents], contents[0].version
        before, flags = await asyncio.gather(
            stored(self._contents.states(ids)), stored(stored_flags(self._records, ids, version))
        )
        kept = [
            carried(flag, same_content=state.sha256 == content.ad.content_hash())
            for content, state, flag in zip(contents, before, flags, strict=True)
        ]
        # Content first: whoever finds a record finds its content too.
        in_time = await stored(self._contents.write(contents))
        rows = [row for row, written in enumerate(in_time) if written]
        if rows:
            await self._record([contents[row] for row in rows], [kept[row] for row in rows])
        await self._activate(version)
        return kept

    async def end(self, ad_id: int) -> None:
        """The ad has ended, unless it is sent anew meanwhile."""
        sequence = (await self.sequences([ad_id]))[0]
        if not await stored(self._contents.end(ad_id, sequence)):
            return
        await stored(self._owed.remove(ad_id))  # a verdict on its way counts no more
        await stored(self._records.delete([ad_id]))
        await self._agree([ad_id], [sequence])

    async def block(self, ad_id: int, reason: str) -> int:
        """Take an ad down; how many replicas of the store have it."""
        return (await stored(self._records.block([ad_id], reason, source="human"))).replicated

    async def unblock(self, ad_id: int) -> int:
        """Lift a human's mark; how many replicas of the store have it."""
        return (await stored(self._records.unblock([ad_id], source="human"))).replicated

    async def _record(self, contents: Sequence[Content], flags: Sequence[Flag]) -> None:
        ids = [content.ad.ad_id for content in contents]
        sequences = [content.sequence for content in contents]
        # Before the record: one that says PENDING is always owed its verdict.
        await stored(self._owed.add(ids))
        await stored(
            self._records.write(
                np.array(ids, np.int64),
                np.stack([content.codes for content in contents]),
                np.array(flags, np.uint16),
                version=contents[0].version,
                sequence=np.array(sequences, np.int64),
            )
        )
        # Again: the verdict may have been settled on the record that this one replaces.
        await asyncio.gather(stored(self._owed.add(ids)), self._agree(ids, sequences))

    async def _agree(self, ad_ids: Sequence[int], sequences: Sequence[int]) -> None:
        """Make records what the content says, where that is no longer what was just written."""
        mine = dict(zip(ad_ids, sequences, strict=True))
        for _ in range(ATTEMPTS):
            states = await stored(self._contents.states(list(mine)))
            later = {
                ad_id: state
                for ad_id, state in zip(mine, states, strict=True)
                if state.sequence != mine[ad_id]
            }
            if not later:
                return
            for ad_id, state in later.items():
                await self._repeat(ad_id, state)
            mine = {ad_id: state.sequence for ad_id, state in later.items()}
        raise UnavailableError(f"ads {sorted(mine)} are changed all the time; send them again")

    async def _repeat(self, ad_id: int, state: State) -> None:
        """Do once more to a record what a later change did to it: this one may have undone it."""
        if not state.live:
            await stored(self._records.delete([ad_id]))
        elif not await stored(recorded(self._records, ad_id, state.version)):
            await stored(self._owed.add([ad_id]))
            await stored(
                self._records.write(
                    [ad_id],
                    state.codes[None],
                    [int(Flag.PENDING)],
                    version=state.version,
                    sequence=[state.sequence],
                )
            )
            await stored(self._owed.add([ad_id]))

    async def _activate(self, version: str) -> None:
        """Make the first version of an empty store the active one; later ones wait for coverage.

        A block alone begins a version without records. Looked at again now and then: a store may
        come back from a restart without what it held.
        """
        now = time.monotonic()
        if self._looked is not None and now - self._looked < BELIEVED_S:
            return
        versions = await stored(self._records.versions())
        active = next((v for v in versions if v.state == "active"), None)
        if active is None or (active.name != version and not active.records):
            await stored(self._records.activate(version))
        self._looked = now


async def stored(call: Awaitable[_Result]) -> _Result:
    """The result of a store call; its failures as UnavailableError."""
    try:
        return await call
    except (FeatureStoreError, RedisError) as error:
        raise UnavailableError(f"the feature store failed: {error}") from error
