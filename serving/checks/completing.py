"""Completes what is owed: makes verdicts nobody waits for, and writes those of risk to records.

In: debts. Out: verdicts stored, flags and blocks in the feature store, PENDING cleared. While the
engine or the store is away nothing is lost and nobody waits: the debts stay. What fails TRIES times
while the engine is there, or cannot be judged at all, becomes a dead letter.
"""

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from typing import Protocol

from redis.exceptions import RedisError

from feature_store import AsyncFeatureStore, Flag, Found, Status
from feature_store.errors import FeatureStoreError
from feature_store.record import CATEGORIES
from serving.checks.judge import Judged
from serving.checks.judges import Judges
from serving.checks.overrides import human_flags
from serving.checks.owed import Debt, Owed
from serving.checks.policy import Policy
from serving.checks.spreading import Spreading
from serving.checks.subjects import Subject, Subjects
from serving.checks.understander import LATER
from serving.checks.verdicts import Relevance, Risk
from serving.deadline import Deadline
from serving.errors import (
    DeadlineExceededError,
    InvalidContentError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    ServingError,
    UnavailableError,
)
from serving.metrics import Metrics

BATCH = 4  # ads at a time: 40 reads, behind which somebody who waits may stand
POLL_S = 0.25
AWAY_S = 1.0
PATIENCE_S = 45.0  # less than a lease
TRIES = 8  # after which a debt is a dead letter
RECORD_S, RECORD_LOOKS = 0.3, 4  # how long a record that is on its way is waited for
TELL_S = 5.0
READ_S = 5.0  # nobody waits; a lookup's own 50 ms are too few on a busy machine
_CATEGORY_BITS = Flag(sum(CATEGORIES.values()))

logger = logging.getLogger("tessera.checks")


class Engine(Protocol):
    """Says whether asking makes sense."""

    def check(self) -> None:
        """Raises UnavailableError while the engine is away."""


class Records:
    """Writes verdicts to the feature store."""

    def __init__(self, store: AsyncFeatureStore, spreading: Spreading | None = None) -> None:
        self._store = store
        self._spreading = spreading

    async def apply(self, ad_id: int, risk: Risk, policy: Policy) -> bool:
        """Flags and block of one ad; False when there is no record of it (yet).

        A verdict's block is a mark of its own: a new verdict lifts only that, never a human's.
        Flags that a human has set are left as they are, but for what a human said (`risk.by`); the
        mark of a human's block is set where he sets it. Raises FeatureStoreError, UnavailableError.
        """
        human = risk.by == "human"
        before = await self._read(ad_id)
        if not human and before.status[0] == Status.HIT and before.flags[0] & Flag.HUMAN:
            return True
        flags = human_flags(risk) if human else policy.flags(risk.categories, risk.verdict)
        if risk.by == "duplicate":
            flags |= Flag.DUPLICATE
        clear = (Flag.PENDING | Flag.REVIEW | Flag.DUPLICATE | _CATEGORY_BITS) & ~flags
        if (
            risk.verdict == "block" and policy.checks.enforce and not human
        ):  # before the flags: no lookup serves it in between
            reason = ", ".join(n for n, bit in CATEGORIES.items() if bit & flags)
            await self._store.block([ad_id], reason, source="verdict")
        else:
            await self._store.unblock([ad_id], source="verdict")
        if await self._store.update_flags([ad_id], int(flags), int(clear)):
            return True
        # Nothing changed: the flags were so already, or there is no record.
        return (await self._read(ad_id)).status[0] in (Status.HIT, Status.BLOCKED)

    async def _read(self, ad_id: int) -> Found:
        found = await self._store.lookup([ad_id], deadline=READ_S)
        if found.status[0] == Status.UNAVAILABLE:  # not to be taken for no record, or no flags
            raise UnavailableError(f"the store did not answer within {READ_S:.0f} s")
        return found

    async def spread(self, subject: Subject, risk: Risk, policy: Policy) -> None:
        """Have near copies of an ad know of its verdict. Raises UnavailableError."""
        if self._spreading is not None:
            await self._spreading.judged(subject, policy, blocked=risk.verdict == "block")


@dataclass(frozen=True, slots=True)
class Turn:
    """taken: debts that a turn looked at. paid: those that are owed no more."""

    taken: int
    paid: int

    @property
    def pause_s(self) -> float:
        """How long to wait for the next: not at all while there is work that succeeds."""
        if not self.taken:
            return POLL_S
        return 0.0 if self.paid else AWAY_S


class Completer:
    """One worker; run it for as long as the application lives."""

    def __init__(
        self, judge: Judges, subjects: Subjects, owed: Owed, records: Records, metrics: Metrics
    ) -> None:
        self._judge = judge
        self._subjects = subjects
        self._owed = owed
        self._records = records
        self._settled = metrics.counter("tessera_completed_verdicts", "settled", ("outcome",))
        self._owing = metrics.gauge("tessera_owed", "verdicts that are owed, by state", ("state",))
        self._oldest = metrics.gauge("tessera_owed_oldest_seconds", "age of the oldest of them")
        self._told = -math.inf

    async def run(self, engine: Engine) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._tell()
                engine.check()
                await asyncio.sleep((await self.turn()).pause_s)
            except (ServingError, FeatureStoreError, RedisError) as error:
                if not isinstance(error, UnavailableError):
                    logger.warning("verdicts stay owed: %s", error)
                await asyncio.sleep(AWAY_S)
            except Exception:  # the worker must outlive whatever one ad does to it
                logger.exception("verdicts stay owed")
                await asyncio.sleep(AWAY_S)

    async def turn(self) -> Turn:
        """Work on one batch of debts. Raises what `run` waits out; they stay taken for a lease."""
        debts = await self._owed.take(BATCH)
        if not debts:
            return Turn(0, 0)
        found = await self._subjects.read([debt.ad_id for debt in debts])
        paid = await asyncio.gather(*map(self._pay, debts, found), return_exceptions=True)
        for one in paid:  # all of them have ended by now
            if isinstance(one, BaseException):
                raise one
        return Turn(len(debts), sum(map(bool, paid)))

    async def _pay(self, debt: Debt, subject: Subject | ServingError) -> bool:
        """Judge and settle one debt; whether it is owed no more."""
        if debt.deliveries > TRIES:  # whoever took it never came back to say why
            return await self._bury(debt, f"{TRIES} workers took it and none settled it")
        if isinstance(subject, NotFoundError):  # it has ended
            await self._owed.settle(debt)
            return True
        judged = subject if isinstance(subject, ServingError) else await self._judged(debt, subject)
        if isinstance(judged, ServingError):
            return await self._failed(debt, judged)
        if not await self._applied(debt, judged.value):
            return False
        if isinstance(judged.value, Risk) and isinstance(subject, Subject):
            await self._records.spread(subject, judged.value, self._judge.policy)
        await self._owed.settle(debt)
        return True

    async def _judged(
        self, debt: Debt, subject: Subject
    ) -> Judged[Risk] | Judged[Relevance] | ServingError:
        deadline, judge = Deadline.after(PATIENCE_S), self._judge
        found: Judged[Risk] | Judged[Relevance] | ServingError
        if debt.query:
            found = (await judge.relevance(debt.query, [subject], deadline, LATER))[0]
        else:
            found = (await judge.risk([subject], deadline, LATER))[0]
        # What only stands in for the model is good enough for nobody here.
        return found if isinstance(found, ServingError) else found.instead_of or found

    async def _applied(self, debt: Debt, value: Risk | Relevance) -> bool:
        """False while there is no record to write to: taken again after the lease."""
        if isinstance(value, Relevance):
            self._settled.inc(tags={"outcome": "relevance"})
            return True
        for _ in range(RECORD_LOOKS):
            if not await self._owed.holds(debt):
                return True  # the ad has changed or ended meanwhile: another verdict counts
            if await self._records.apply(debt.ad_id, value, self._judge.policy):
                self._settled.inc(tags={"outcome": value.verdict})
                return True
            await asyncio.sleep(RECORD_S)  # ingest owes first and writes the record then
        logger.warning("ad %d is owed a verdict and has no record", debt.ad_id)
        return False

    async def _failed(self, debt: Debt, error: ServingError) -> bool:
        self._settled.inc(tags={"outcome": error.slug})
        if isinstance(error, InvalidContentError | InvalidRequestError):  # stays wrong
            return await self._bury(debt, error.detail)
        # To be late or refused is not the ad's doing; to be there when an engine dies may be.
        tries = debt.tries + (not isinstance(error, OverloadedError | DeadlineExceededError))
        if tries >= TRIES:
            return await self._bury(debt, f"failed {tries} times, at last: {error.detail}")
        logger.warning("ad %d stays without a verdict: %s", debt.ad_id, error)
        await self._owed.retry(debt, tries)
        return False

    async def _bury(self, debt: Debt, reason: str) -> bool:
        logger.error("no verdict of ad %d will be made: %s", debt.ad_id, reason)
        self._settled.inc(tags={"outcome": "dead"})
        await self._owed.bury(debt, reason)
        return True

    async def _tell(self) -> None:
        """Say how far behind the workers are, seldom; every replica says the same."""
        if time.monotonic() < self._told + TELL_S:
            return
        if self._told == -math.inf:
            await self._owed.prune()
        self._told = time.monotonic()
        lag = await self._owed.lag()
        self._owing.set(lag.owed - lag.taken, tags={"state": "waiting"})
        self._owing.set(lag.taken, tags={"state": "taken"})
        self._owing.set(lag.dead, tags={"state": "dead"})
        self._oldest.set(lag.oldest_s)
