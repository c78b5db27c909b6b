"""Completes what is owed: judges ads that were taken in and writes their verdicts to the records.

In: the owed set. Out: flags and blocks in the feature store, PENDING cleared. While the engine or
the store is away nothing is lost and nobody waits: the ids stay owed.
"""

import asyncio
import logging
from typing import Protocol

from redis.exceptions import RedisError

from feature_store import AsyncFeatureStore, Flag, Status
from feature_store.errors import FeatureStoreError
from feature_store.record import CATEGORIES
from serving.checks.judge import Judge, Judged
from serving.checks.owed import Lease, Owed
from serving.checks.policy import Policy
from serving.checks.subjects import Subject, Subjects
from serving.checks.understander import LATER
from serving.checks.verdicts import Risk
from serving.deadline import Deadline
from serving.errors import (
    InvalidContentError,
    InvalidRequestError,
    NotFoundError,
    ServingError,
    UnavailableError,
)
from serving.metrics import Counter

BATCH = 4  # ads at a time: 40 reads, behind which somebody who waits may stand
POLL_S = 0.25
AWAY_S = 1.0
PATIENCE_S = 45.0  # less than a lease
_CATEGORY_BITS = Flag(sum(CATEGORIES.values()))

logger = logging.getLogger("tessera.checks")


class Engine(Protocol):
    """Says whether asking makes sense."""

    def check(self) -> None:
        """Raises UnavailableError while the engine is away."""


class Records:
    """Writes verdicts to the feature store."""

    def __init__(self, store: AsyncFeatureStore) -> None:
        self._store = store

    async def apply(self, ad_id: int, risk: Risk, policy: Policy) -> bool:
        """Flags and block of one ad; False when there is no record of it (yet).

        A verdict's block is a mark of its own: a new verdict lifts only that, never a human's.
        Flags that a human has set are left as they are. Raises FeatureStoreError.
        """
        before = await self._store.lookup([ad_id])
        if before.status[0] == Status.HIT and Flag.HUMAN in Flag(int(before.flags[0])):
            return True
        flags = policy.flags(risk.categories, risk.verdict)
        clear = (Flag.PENDING | Flag.REVIEW | _CATEGORY_BITS) & ~flags
        if (
            risk.verdict == "block" and policy.checks.enforce
        ):  # before the flags: no lookup serves it in between
            reason = ", ".join(n for n, bit in CATEGORIES.items() if bit & flags)
            await self._store.block([ad_id], reason, source="verdict")
        else:
            await self._store.unblock([ad_id], source="verdict")
        if await self._store.update_flags([ad_id], int(flags), int(clear)):
            return True
        # Nothing changed: the flags were so already, or there is no record.
        status = int((await self._store.lookup([ad_id])).status[0])
        return status in (Status.HIT, Status.BLOCKED)


class Completer:
    """One worker; run it for as long as the application lives."""

    def __init__(
        self, judge: Judge, subjects: Subjects, owed: Owed, records: Records, completed: Counter
    ) -> None:
        self._judge = judge
        self._subjects = subjects
        self._owed = owed
        self._records = records
        self._completed = completed

    async def run(self, engine: Engine) -> None:
        """Until cancelled."""
        while True:
            try:
                engine.check()
                busy = await self.turn()
                await asyncio.sleep(0 if busy else POLL_S)
            except (ServingError, FeatureStoreError, RedisError) as error:
                if not isinstance(error, UnavailableError):
                    logger.warning("verdicts stay owed: %s", error)
                await asyncio.sleep(AWAY_S)
            except Exception:  # the worker must outlive whatever one ad does to it
                logger.exception("verdicts stay owed")
                await asyncio.sleep(AWAY_S)

    async def turn(self) -> int:
        """Judge one batch of what is due; how many ads it was. Raises what `run` waits out."""
        lease = await self._owed.take(BATCH)
        if not lease.ad_ids:
            return 0
        found = await self._subjects.read(lease.ad_ids)
        subjects = [one for one in found if isinstance(one, Subject)]
        for ad_id, one in zip(lease.ad_ids, found, strict=True):
            if isinstance(one, NotFoundError):  # it has ended
                await self._owed.done(ad_id, lease)
        judged = await self._judge.risk(subjects, Deadline.after(PATIENCE_S), LATER)
        for subject, verdict in zip(subjects, judged, strict=True):
            await self._settle(subject, verdict, lease)
        return len(lease.ad_ids)

    async def _settle(
        self, subject: Subject, verdict: Judged[Risk] | ServingError, lease: Lease
    ) -> None:
        ad_id = subject.ad_id or 0
        if isinstance(verdict, ServingError):
            self._completed.inc(tags={"outcome": verdict.slug})
            logger.warning("ad %d stays without a verdict: %s", ad_id, verdict)
            # Only wrong content stays wrong; an engine or a model that is full or away does not.
            if isinstance(verdict, InvalidContentError | InvalidRequestError):
                await self._owed.done(ad_id, lease)
            else:
                await self._owed.add([ad_id], AWAY_S)
            return
        if not await self._owed.holds(ad_id, lease):
            return  # the ad has changed or ended meanwhile: another verdict counts
        if await self._records.apply(ad_id, verdict.value, self._judge.policy):
            await self._owed.done(ad_id, lease)
            self._completed.inc(tags={"outcome": verdict.value.verdict})
