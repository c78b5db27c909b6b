"""Single flight, and asks that travel together.

In: keys with something to do, or asks. Out: one run a key however many wait for it; one call to the
engine for all asks that came while the former calls were on their way.
"""

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from serving.errors import OverloadedError, ServingError, UnavailableError
from serving.llm.asks import Ask, Read

_Value = TypeVar("_Value")
SMOOTHING = 0.2  # weight of the newest call in the running rate

logger = logging.getLogger("tessera.checks")


class Flights(Generic[_Value]):
    """Tasks by key. A waiter that goes away cancels nothing: the result is kept, others wait.

    most: flights at a time; nobody who gives up takes his with him, so they must be bounded.
    """

    def __init__(self, most: int = 4096) -> None:
        self._tasks: dict[Hashable, asyncio.Task[_Value]] = {}
        self._most = most
        self.landed = 0  # how many have ended

    def join(self, key: Hashable, make: Callable[[], Awaitable[_Value]]) -> "asyncio.Task[_Value]":
        """The task of `key`, started if there is none. Raises OverloadedError."""
        task = self._tasks.get(key)
        if task is None:
            if len(self._tasks) >= self._most:
                raise OverloadedError(
                    f"{len(self._tasks)} verdicts are being made, which is all that may be at a "
                    "time; come back later"
                )

            async def run() -> _Value:
                try:
                    return await make()
                except asyncio.CancelledError:
                    raise UnavailableError("the work was cancelled; ask again") from None

            # In a context of its own: Serve cancels the calls of a request that goes away, and
            # this work is not only that request's.
            task = asyncio.create_task(run(), context=contextvars.Context())
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return task

    def __len__(self) -> int:
        return len(self._tasks)

    def _landed(self, key: Hashable, task: "asyncio.Task[_Value]") -> None:
        self._tasks.pop(key, None)
        self.landed += 1
        if not task.cancelled():
            task.exception()  # retrieved: whoever waited has it, and nobody may have


class Reads(Protocol):
    """What reads labels: the engine's handle, or an engine."""

    async def read(
        self, asks: Sequence[Ask], labels: tuple[int, ...], timeout_s: float, /
    ) -> list[Read | ServingError]: ...


class Reader:
    """Sends asks to an engine in as few calls as keep it busy."""

    CALLS = 8  # on their way at once
    ASKS = 256  # in one call
    WAITING = 4096  # asks that may wait for a call; what comes then is refused

    def __init__(self, engine: Reads, labels: tuple[int, ...], timeout_s: float) -> None:
        self._engine = engine
        self._labels = labels
        self._timeout_s = timeout_s
        self._waiting: deque[tuple[Ask, asyncio.Future[Read]]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._rate = 1000.0  # asks a second of late; a guess until the first call returns

    async def read(self, asks: Sequence[Ask]) -> list[Read]:
        """All reads, in order. Raises the first ServingError among them, OverloadedError."""
        if self._waiting and len(self._waiting) + len(asks) > self.WAITING:
            raise OverloadedError(
                f"{len(self._waiting)} asks wait for the engine; come back later",
                retry_after_s=len(self._waiting) / max(1.0, self._rate),
            )
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in asks]
        if not self._waiting:
            loop.call_soon(self._send)  # after everyone who is about to ask in this turn
        self._waiting.extend(zip(asks, futures, strict=True))
        found: list[Any] = await asyncio.gather(*futures, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return found

    def _send(self) -> None:
        while self._waiting and len(self._calls) < self.CALLS:
            many = min(self.ASKS, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(many)]
            call = asyncio.create_task(self._call(batch), context=contextvars.Context())
            self._calls.add(call)
            call.add_done_callback(self._returned)

    def _returned(self, call: "asyncio.Task[None]") -> None:
        self._calls.discard(call)
        self._send()

    async def _call(self, batch: Sequence[tuple[Ask, "asyncio.Future[Read]"]]) -> None:
        asks = [ask for ask, _ in batch]
        found: Sequence[Read | ServingError]
        started = time.monotonic()
        try:
            found = await self._engine.read(asks, self._labels, self._timeout_s)
            rate = len(asks) * len(self._calls) / max(1e-3, time.monotonic() - started)
            self._rate += SMOOTHING * (rate - self._rate)
        except ServingError as error:
            found = [error] * len(batch)
        except asyncio.CancelledError:
            found = [UnavailableError("a call to the engine was cancelled")] * len(batch)
        except Exception as error:  # whoever waits must hear of it, whatever it is
            logger.exception("a call to the engine failed")
            found = [UnavailableError(f"the engine failed: {type(error).__name__}")] * len(batch)
        for (_, future), one in zip(batch, found, strict=True):
            if future.done():
                continue
            if isinstance(one, ServingError):
                future.set_exception(one)
            else:
                future.set_result(one)
