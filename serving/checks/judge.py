"""The judge path in one screen: a person's word, a stored verdict, else the cascade that ends in
the model, once for all who ask at a time.

In: subjects and a deadline. Out: for each a verdict and where it came from, or the ServingError
that stood in the way; never later than the deadline. What was begun is finished and stored still.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from redis.exceptions import RedisError

from serving.checks.flights import Flights
from serving.checks.policy import Policy
from serving.checks.subjects import Subject
from serving.checks.understander import SOON
from serving.checks.verdicts import (
    Caption,
    Maker,
    Relevance,
    Risk,
    Scope,
    Stores,
    VerdictStore,
)
from serving.deadline import Deadline
from serving.errors import (
    DeadlineExceededError,
    OverloadedError,
    ServingError,
    UnavailableError,
)

_Kind = TypeVar("_Kind", bound=Relevance | Risk | Caption)
Source = Literal["cache"] | Maker
# A row's key in a scope, and what asks the model for it.
_Task = tuple[Callable[[Scope, int], bytes], Callable[[int], Awaitable[_Kind]]]

logger = logging.getLogger("tessera.checks")


class Makes(Protocol):
    """What makes verdicts that are not stored: an `Understander`, or a `Cascade` before it."""

    async def relevance(self, query: str, subject: Subject, priority: int, /) -> Relevance: ...

    async def risk(self, subject: Subject, priority: int, /) -> Risk: ...

    async def caption(self, subject: Subject, /) -> Caption: ...

    def tell(self, subject: Subject, /) -> AsyncGenerator[str]: ...

    def meanwhile(self, query: str, subject: Subject, /) -> Relevance | Risk | None:
        """What is known without the model of relevance, or without a query of risk; waits for
        nothing, and is never stored."""


# What passes: the model is away, full or late, and the ad is not at fault.
PASSING = (UnavailableError, OverloadedError, DeadlineExceededError)

# Names under which a person's word on a task, a subject and a query may lie, the strongest first.
Above = Callable[[str, Subject, str], list[bytes]]


def nobody(_task: str, _subject: Subject, _query: str) -> list[bytes]:
    """Where no person has a word."""
    return []


@dataclass(frozen=True, slots=True)
class Judged(Generic[_Kind]):
    """A verdict and where it came from. instead_of: why it only stands in for the model's."""

    value: _Kind
    source: Source
    instead_of: ServingError | None = None


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
        above: Sequence[Sequence[bytes]] = (),
        *,
        remembered: bool = True,
    ) -> list[Judged[_Kind] | ServingError]:
        """One result a key, in order; `make(row)` makes a row's. For the others see
        `VerdictStore.get`."""
        landed = self._flights.landed
        found = await self._store.get(keys, above, remembered=remembered)
        # Some verdict was stored meanwhile, perhaps after this reading: who makes one looks again.
        again = self._flights.landed != landed
        flights: dict[int, asyncio.Task[_Kind]] = {}
        refused: dict[int, ServingError] = {}
        for row, value in enumerate(found):
            if value is None:
                try:
                    made = self._made(keys[row], make, row, again)
                    flights[row] = self._flights.join(keys[row], made)
                except OverloadedError as error:
                    refused[row] = error
        if flights:
            # Not wait_for: it would cancel what others wait for too.
            await asyncio.wait(set(flights.values()), timeout=deadline.remaining_s)
        return [
            Judged(value, "human" if value.by == "human" else "cache")
            if value is not None
            else refused[row]
            if row in refused
            else _landed(flights[row])
            for row, value in enumerate(found)
        ]

    async def stored(self, keys: Sequence[bytes]) -> list[_Kind | None]:
        """What is stored under each key."""
        return await self._store.get(keys)

    async def keep(self, key: bytes, value: _Kind) -> _Kind:
        """Store a verdict unless there is one; the one that holds, or this while none can be."""
        try:
            return await self._store.put(key, value)
        except RedisError as error:
            logger.warning("a verdict was not stored: %s", error)
            return value

    def _made(
        self, key: bytes, make: Callable[[int], Awaitable[_Kind]], row: int, again: bool
    ) -> Callable[[], Awaitable[_Kind]]:
        async def run() -> _Kind:
            if again:
                (stored,) = await self._store.get([key], remembered=False)
                if stored is not None:
                    return stored
            return await self.keep(key, await make(row))

        return run


class ScopeChangedError(UnavailableError):
    """What a verdict was to be stored under is not what it was made with any more."""


class Judge:
    """Answers checks under one policy and one model.

    scope: what verdicts are stored under now; another one once images are no longer looked at, or
    are again. A verdict that was made while it changed is not stored, and is made anew.
    """

    def __init__(
        self,
        policy: Policy,
        makes: Makes,
        scope: Callable[[], Scope],
        stores: Stores,
        above: Above = nobody,
    ) -> None:
        self.policy = policy
        self._makes = makes
        self._scope = scope
        self._above = above
        self._relevance = Desk(stores.relevance)
        self._risk = Desk(stores.risk)
        self._captions = Desk(stores.captions)

    async def relevance(
        self, query: str, subjects: Sequence[Subject], deadline: Deadline, priority: int = SOON
    ) -> list[Judged[Relevance] | ServingError]:
        """Does each ad answer the query?"""

        def key(scope: Scope, row: int) -> bytes:
            return scope.key("relevance", subjects[row].content, query)

        def make(row: int) -> Awaitable[Relevance]:
            return self._makes.relevance(query, subjects[row], priority)

        above = [self._above("relevance", subject, query) for subject in subjects]
        found = await self._judged(self._relevance, above, (key, make), deadline, priority)
        return [
            self._standing_in(Relevance, one, query, subject)
            for one, subject in zip(found, subjects, strict=True)
        ]

    async def risk(
        self, subjects: Sequence[Subject], deadline: Deadline, priority: int
    ) -> list[Judged[Risk] | ServingError]:
        """What is wrong with each ad?"""

        def key(scope: Scope, row: int) -> bytes:
            return scope.key("risk", subjects[row].content)

        def make(row: int) -> Awaitable[Risk]:
            return self._makes.risk(subjects[row], priority)

        above = [self._above("risk", subject, "") for subject in subjects]
        found = await self._judged(self._risk, above, (key, make), deadline, priority)
        return [
            self._standing_in(Risk, one, "", subject)
            for one, subject in zip(found, subjects, strict=True)
        ]

    async def caption(self, subject: Subject, deadline: Deadline) -> Judged[Caption]:
        """What the image shows. Raises ServingError."""

        def key(scope: Scope, _row: int) -> bytes:
            return scope.key("caption", subject.content)

        def make(_row: int) -> Awaitable[Caption]:
            return self._makes.caption(subject)

        (found,) = await self._judged(self._captions, [[]], (key, make), deadline)
        if isinstance(found, ServingError):
            raise found
        return found

    async def tell(self, subject: Subject) -> AsyncGenerator[Judged[Caption]]:
        """The same as it is written; the last one is whole, and is stored.

        Whoever stops reading ends the writing. Raises ServingError.
        """
        scope = self._scope()
        key = scope.key("caption", subject.content)
        (stored,) = await self._captions.stored([key])
        if stored is not None:
            yield Judged(stored, "cache")
            return
        text = ""
        async with aclosing(self._makes.tell(subject)) as texts:
            async for text in texts:
                yield Judged(Caption(text), "llm")
        if self._scope() == scope:
            yield Judged(await self._captions.keep(key, Caption(text)), "llm")

    def _standing_in(
        self, kind: type[_Kind], found: Judged[_Kind] | ServingError, query: str, subject: Subject
    ) -> Judged[_Kind] | ServingError:
        """The router's verdict, or a review, in place of a model that is away, full or late."""
        if not isinstance(found, PASSING):
            return found
        value = self._makes.meanwhile(query, subject)
        return Judged(value, value.by, found) if isinstance(value, kind) else found

    async def _judged(
        self,
        desk: Desk[_Kind],
        above: Sequence[Sequence[bytes]],
        task: _Task[_Kind],
        deadline: Deadline,
        priority: int = SOON,
    ) -> list[Judged[_Kind] | ServingError]:
        key, make = task
        found: list[Judged[_Kind] | ServingError] = []
        for _ in range(2):  # the second time with what was learned about the scope meanwhile
            scope = self._scope()

            async def checked(row: int, scope: Scope = scope) -> _Kind:
                value = await make(row)
                if self._scope() != scope:
                    raise ScopeChangedError("the model's inputs have changed meanwhile; ask again")
                return value

            keys = [key(scope, row) for row in range(len(above))]
            # What nobody waits for is written to records: as things are, not as they were of late.
            soon = priority == SOON
            found = await desk.judge(keys, checked, deadline, above, remembered=soon)
            if not any(isinstance(one, ScopeChangedError) for one in found):
                break
        return found


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
    value = task.result()
    return Judged(value, value.by)
