"""The asyncio side of an engine: one thread steps it, everybody else awaits.

In: asks from any task of one event loop. Out: reads and texts. The thread alone touches the engine,
so an ask is never cancelled half-way into it: a caller that goes away is forgotten with an abort.
When a step fails the engine is dead: all that wait hear it, `health` says it, and the process is
to be replaced.
"""

import asyncio
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from serving.errors import InvalidRequestError, OverloadedError, ServingError, UnavailableError
from serving.llm.asks import Ask, Read, Shape, check
from serving.llm.vllm_engine import Finished

logger = logging.getLogger("tessera.llm")
STOP_S = 10.0


class Steps(Protocol):
    """An engine that is driven by hand."""

    shape: Shape

    @property
    def busy(self) -> bool: ...
    def add(self, name: str, ask: Ask, labels: tuple[int, ...], max_tokens: int) -> None: ...
    def abort(self, name: str) -> None: ...
    def step(self) -> list[Finished]: ...
    def counters(self) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True)
class _Job:
    name: str
    ask: Ask
    labels: tuple[int, ...]
    max_tokens: int
    future: "asyncio.Future[Finished]"


class Engine:
    """Runs an engine made by `open_engine` in a thread of its own; make it inside a running loop.

    waiting: at most this many asks are in it at once.
    """

    def __init__(self, open_engine: Callable[[], Steps], waiting: int) -> None:
        self._open = open_engine
        self._waiting = waiting
        self._loop = asyncio.get_running_loop()
        self._commands: queue.SimpleQueue[_Job | str | None] = queue.SimpleQueue()
        self._jobs: dict[str, _Job] = {}  # of the loop
        self._numbers = itertools.count()
        self._error: BaseException | None = None
        self._opened: asyncio.Future[Steps] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="llm-engine", daemon=True)
        self._thread.start()

    async def start(self) -> Shape:
        """Wait until the engine is open. Raises what opening it raised."""
        return (await asyncio.shield(self._opened)).shape

    async def read(self, asks: Sequence[Ask], labels: tuple[int, ...]) -> list[Read | ServingError]:
        """Log-probabilities of one or more labels (at most 128) as the next token, an ask each."""
        if not 1 <= len(labels) <= 128:
            raise InvalidRequestError(f"expected 1-128 labels, found {len(labels)}")
        done = await asyncio.gather(*(self._ask(ask, labels, 1) for ask in asks))
        return [found if isinstance(found, ServingError) else found.read(labels) for found in done]

    async def generate(self, ask: Ask, max_tokens: int) -> tuple[int, ...]:
        """Greedy continuation, without the end token. Raises ServingError."""
        found = await self._ask(ask, (), max_tokens)
        if isinstance(found, ServingError):
            raise found
        return found.ids

    def health(self) -> None:
        """Raises UnavailableError when the engine has died."""
        if self._error is not None or not self._thread.is_alive():
            raise UnavailableError(f"the language-model engine has ended: {self._error}")

    @property
    def in_flight(self) -> int:
        """Asks that are in the engine now."""
        return len(self._jobs)

    async def close(self) -> None:
        """Stop the thread; what waits is told."""
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join, STOP_S)

    async def _ask(
        self, ask: Ask, labels: tuple[int, ...], max_tokens: int
    ) -> Finished | ServingError:
        self.health()
        shape = await self.start()
        try:
            check(ask, shape, max_tokens)
        except InvalidRequestError as error:
            return error
        if len(self._jobs) >= self._waiting:
            return OverloadedError(f"{self._waiting} asks are in the engine already")
        name = str(next(self._numbers))
        future: asyncio.Future[Finished] = self._loop.create_future()
        job = self._jobs[name] = _Job(name, ask, labels, max_tokens, future)
        self._commands.put(job)
        try:
            return await future
        except ServingError as error:
            return error
        finally:
            if self._jobs.pop(name, None) is not None:  # the caller went away before the answer
                self._commands.put(name)

    # Below: the thread's side.

    def _run(self) -> None:
        try:
            engine = self._open()
        except BaseException as error:  # noqa: BLE001 - whoever waits for `start` raises it
            self._error = error
            self._tell(self._opened.set_exception, error)
            return
        self._tell(self._opened.set_result, engine)
        try:
            while self._take(engine):
                finished = engine.step()
                if finished:
                    self._tell(self._resolve, finished)
            self._error = UnavailableError("it was closed")
        except Exception as error:
            logger.exception("the engine failed")
            self._error = error
        self._tell(self._fail)

    def _take(self, engine: Steps) -> bool:
        """Hand commands over, waiting for one while the engine is idle; False: stop."""
        while True:
            try:
                command = self._commands.get(block=not engine.busy)
            except queue.Empty:
                return True
            if command is None:
                return False
            if isinstance(command, str):
                engine.abort(command)
                continue
            try:
                engine.add(command.name, command.ask, command.labels, command.max_tokens)
            except (ValueError, TypeError) as error:  # vLLM's own validation
                refused = InvalidRequestError(f"the engine refuses this prompt: {error}")
                self._tell(self._refuse, command, refused)

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended, so nobody waits
            logger.debug("the event loop ended before the engine")

    # Back in the loop.

    def _resolve(self, finished: Sequence[Finished]) -> None:
        for found in finished:
            job = self._jobs.pop(found.name, None)
            if job is not None and not job.future.done():
                job.future.set_result(found)

    def _refuse(self, job: _Job, error: ServingError) -> None:
        self._jobs.pop(job.name, None)
        if not job.future.done():
            job.future.set_exception(error)

    def _fail(self) -> None:
        for job in list(self._jobs.values()):
            self._refuse(job, UnavailableError(f"the engine has ended: {self._error}"))
