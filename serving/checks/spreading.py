"""What one verdict means for other ads: a block sends near copies to review, in every replica.

In: ads that were judged, by this replica or another. Out: flags DUPLICATE and REVIEW on copies of a
blocked one; and the index of creatives, filled at the start from the content that ingest keeps and
then from a capped stream in which every replica says which ads it has judged.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from feature_store import AsyncFeatureStore, Flag
from feature_store.errors import FeatureStoreError
from feature_store.keys import tags
from serving.checks.duplicates import MOST, Creative, Creatives
from serving.checks.policy import Policy
from serving.checks.subjects import Subject, Subjects
from serving.checks.vectors import Space
from serving.errors import ServingError, UnavailableError
from serving.ingest.content import CONTENT

KEPT = 65_536  # entries of the stream; a replica that was away longer reads the content anew
READ = 256  # ads a round trip
POLL_S = 1.0
COPIES = 256  # of one ad, that one block sends to review
_ID_BYTES = 8

logger = logging.getLogger("tessera.checks")


class Spreading:
    """`client` is a redis.asyncio client (plain or cluster)."""

    def __init__(
        self, client: Any, store: AsyncFeatureStore, subjects: Subjects, space: Space
    ) -> None:
        self._client = client
        self._store = store
        self._subjects = subjects
        self._space = space
        self._stream = f"{store.keys.namespace}:judged{{{tags()[0]}}}".encode()
        self.creatives = Creatives()

    async def judged(self, subject: Subject, policy: Policy, *, blocked: bool) -> int:
        """An ad has its verdict; how many copies of it went to review.

        Raises UnavailableError.
        """
        try:
            member = (subject.ad_id or 0).to_bytes(_ID_BYTES, "little")
            await self._client.xadd(self._stream, {"ad": member}, maxlen=KEPT, approximate=True)
            return await self._review(subject, policy) if blocked else 0
        except (RedisError, FeatureStoreError) as error:
            raise UnavailableError(f"the feature store failed: {error}") from error

    async def _review(self, subject: Subject, policy: Policy) -> int:
        rule = policy.file.duplicates
        if rule is None:
            return 0
        vector, revision = await self._space.ad(subject)
        ad = Creative.of(subject, vector)
        near = await self.creatives.near(ad, rule.cosine, revision, COPIES)
        held = {ad_id: one.content for one in near for ad_id in one.ads}
        found = await self._subjects.read(list(held)) if held else []
        ids = [  # those that still are what they were when they were found alike
            one.ad_id
            for one in found
            if isinstance(one, Subject) and one.ad_id and held[one.ad_id] == one.content
        ]
        if not ids:
            return 0
        return int(await self._store.update_flags(ids, int(Flag.DUPLICATE | Flag.REVIEW), 0))

    async def run(self) -> None:
        """Fill the index and keep it so, until cancelled."""
        last: bytes | None = None
        while True:
            try:
                if last is None:
                    newest = await self._end()
                    await self.fill()
                    last = newest
                last = await self.follow(last)
            except (ServingError, RedisError) as error:
                logger.warning("creatives are not followed: %s", error)
            except Exception:  # it must outlive whatever one ad's content does to it
                logger.exception("creatives are not followed")
            await asyncio.sleep(POLL_S)

    async def fill(self) -> int:
        """Read the content keys until the index is full; how many ads it took."""
        taken = 0
        pattern = f"{self._store.keys.namespace}:{CONTENT}{{*"
        ids: list[int] = []
        async for key in self._client.scan_iter(match=pattern, count=1000):
            ids.append(int.from_bytes(key[-_ID_BYTES:], "little"))
            if len(ids) == READ:
                taken += await self._take(ids)
                ids = []
            if taken >= MOST:
                return taken
        return taken + await self._take(ids)

    async def follow(self, last: bytes) -> bytes:
        """Take what replicas have judged since `last`; the new last."""
        while found := await self._client.xread({self._stream: last}, count=READ):
            entries = found[0][1]
            await self._take([int.from_bytes(fields[b"ad"], "little") for _, fields in entries])
            last = entries[-1][0]
        return last

    async def _end(self) -> bytes:
        newest = await self._client.xrevrange(self._stream, count=1)
        return newest[0][0] if newest else b"0-0"

    async def _take(self, ad_ids: Sequence[int]) -> int:
        taken = 0
        for one in await self._subjects.read(ad_ids) if ad_ids else ():
            if isinstance(one, Subject) and (at := await self._space.stored(one)) is not None:
                self.creatives.add(Creative.of(one, at[0]), at[1])
                taken += 1
        return taken
