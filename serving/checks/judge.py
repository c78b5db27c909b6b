"""The judge path in one screen: stored verdict, else the model, once for all who ask at a time.

In: subjects and a deadline. Out: for each a verdict and where it came from, or the ServingError
that stood in the way; never later than the deadline. What was begun is finished and stored still.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from redis.exceptions import RedisError

from serving.checks.flights import Flights
from serving.checks.policy import Policy
from serving.checks.subjects import Subject
from serving.checks.understander import Understander
from serving.checks.verdicts import Caption, Relevance, Risk, Scope, VerdictStore
from serving.deadline import Deadline
from serving.errors import DeadlineExceededError, ServingError

_Kind = TypeVar("_Kind", bound=Relevance | Risk | Caption)
Source = Literal["cache", "llm"]

logger = logging.getLogger("tessera.checks")


@dataclass(frozen=True, slots=True)
class Judged(Generic[_Kind]):
    """A verdict and where it came from."""

    value: _Kind
    source: Source


class Desk(Generic[_Kind]):
    """Verdicts of one kind: looked up together, made one by one, each stored once."""

    def __init__(self, store: VerdictStore[_Kind]) -> None:
        self._store = store
        self._flights: Flights[_Kind] = Flights()

    async def judge(
        self,
        keys: Sequence[bytes],
        make: Callable[[int], Awaitable[_Kind]],
        deadline: Deadline,
    ) -> list[Judged[_Kind] | ServingError]:
        """One result a key, in order; `make(row)` asks the model for a row."""
        found = await self._store.get(keys)
        flights: dict[int, asyncio.Task[_Kind]] = {}
        for row, value in enumerate(found):
            if value is None:
                flights[row] = self._flights.join(keys[row], self._made(keys[row], make, row))
        if flights:
            # Not wait_for: it would cancel what others wait for too.
            await asyncio.wait(set(flights.values()), timeout=deadline.remaining_s)
        return [
            _landed(flights[row]) if value is None else Judged(value, "cache")
            for row, value in enumerate(found)
        ]

    def _made(
        self, key: bytes, make: Callable[[int], Awaitable[_Kind]], row: int
    ) -> Callable[[], Awaitable[_Kind]]:
        async def run() -> _Kind:
            value = await make(row)
            try:
                return await self._store.put(key, value)
            except RedisError as error:
                logger.warning("a verdict was not stored: %s", error)
                return value

        return run


class Judge:
    """Answers checks under one policy and one model. `versions`: of both, for keys and answers."""

    def __init__(
        self, policy: Policy, understander: Understander, scope: Callable[[], Scope], client: Any
    ) -> None:
        self.policy = policy
        self._understander = understander
        self._scope = scope
        self._relevance = Desk(VerdictStore(client, Relevance))
        self._risk = Desk(VerdictStore(client, Risk))
        self._captions = Desk(VerdictStore(client, Caption))

    async def relevance(
        self, query: str, subjects: Sequence[Subject], deadline: Deadline
    ) -> list[Judged[Relevance] | ServingError]:
        """Does each ad answer the query?"""
        scope = self._scope()
        keys = [scope.key("relevance", subject.content, query) for subject in subjects]
        return await self._relevance.judge(
            keys, lambda row: self._understander.relevance(query, subjects[row]), deadline
        )

    async def risk(
        self, subjects: Sequence[Subject], deadline: Deadline, priority: int
    ) -> list[Judged[Risk] | ServingError]:
        """What is wrong with each ad?"""
        scope = self._scope()
        keys = [scope.key("risk", subject.content) for subject in subjects]
        return await self._risk.judge(
            keys, lambda row: self._understander.risk(subjects[row], priority), deadline
        )

    async def caption(self, subject: Subject, deadline: Deadline) -> Judged[Caption]:
        """What the image shows. Raises ServingError."""
        key = self._scope().key("caption", subject.content)
        found = await self._captions.judge(
            [key], lambda _: self._understander.caption(subject), deadline
        )
        if isinstance(found[0], ServingError):
            raise found[0]
        return found[0]


def _landed(task: "asyncio.Task[_Kind]") -> Judged[_Kind] | ServingError:
    if not task.done():
        return DeadlineExceededError(
            "the verdict was not ready in time; it is being made and will be stored: ask again"
        )
    error = task.exception()
    if isinstance(error, ServingError):
        return error
    if error is not None:
        raise error
    return Judged(task.result(), "llm")
