"""The asyncio side of an engine: one thread steps it, everybody else awaits.

In: asks from any task of one event loop. Out: reads and texts, whole or as they come. The thread
alone touches the engine, so an ask is never cancelled half-way into it: a caller that goes away is
forgotten with an abort.
When a step fails the engine is dead: all that wait hear it, `health` says it, and the process is
to be replaced.
"""

import asyncio
import itertools
import logging
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from serving.errors import InvalidRequestError, ServingError, UnavailableError
from serving.llm.admission import Admission
from serving.llm.asks import Ask, Read, Shape, check
from serving.llm.vllm_engine import Job, Output

logger = logging.getLogger("tessera.llm")
STOP_S = 10.0


class Steps(Protocol):
    """An engine that is driven by hand."""

    shape: Shape
    blocks: int

    @property
    def busy(self) -> bool: ...
    def add(self, job: Job, /) -> None: ...
    def abort(self, name: str, /) -> None: ...
    def step(self) -> list[Output]: ...
    def inside(self) -> dict[str, int]: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be in an engine at once: asks, and tokens that are to be computed for them."""

    waiting: int
    tokens: int = 1 << 20


@dataclass(frozen=True, slots=True)
class _Waiter:
    """pieces: outputs as they come, or the error that ends them."""

    job: Job
    pieces: "asyncio.Queue[Output | ServingError]"


class Engine:
    """Runs what `open_engine` opens in a thread of its own; make it inside a running loop."""

    def __init__(self, open_engine: Callable[[], Steps], limits: Limits) -> None:
        self._open = open_engine
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._commands: queue.SimpleQueue[Job | str | None] = queue.SimpleQueue()
        self._waiters: dict[str, _Waiter] = {}  # of the loop
        self._admission: Admission | None = None  # as soon as the engine's sizes are known
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
        self.health()
        return list(await asyncio.gather(*(self._read(ask, labels) for ask in asks)))

    async def generate(self, ask: Ask, max_tokens: int) -> tuple[int, ...]:
        """Greedy continuation, without the end token. Raises ServingError."""
        async with aclosing(self._run_job(ask, (), max_tokens, False)) as outputs:
            return (await anext(outputs)).ids

    async def stream(self, ask: Ask, max_tokens: int) -> AsyncGenerator[tuple[int, ...]]:
        """The same, a few ids at a time; to close it ends the job. Raises ServingError."""
        async with aclosing(self._run_job(ask, (), max_tokens, True)) as outputs:
            async for output in outputs:
                yield output.ids

    def health(self) -> None:
        """Raises UnavailableError when the engine has died."""
        if self._error is not None or not self._thread.is_alive():
            raise UnavailableError(f"the language-model engine has ended: {self._error}")

    @property
    def in_flight(self) -> int:
        """Asks that are in the engine now."""
        return len(self._waiters)

    @property
    def uncached_tokens(self) -> int:
        """Tokens that are to be computed for them, as far as that is known here."""
        return self._admission.uncached if self._admission else 0

    async def close(self) -> None:
        """Stop the thread; what waits is told."""
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join, STOP_S)

    async def _read(self, ask: Ask, labels: tuple[int, ...]) -> Read | ServingError:
        try:
            async with aclosing(self._run_job(ask, labels, 1, False)) as outputs:
                return (await anext(outputs)).read(labels)
        except ServingError as error:
            return error

    async def _run_job(
        self, ask: Ask, labels: tuple[int, ...], max_tokens: int, streamed: bool
    ) -> AsyncGenerator[Output]:
        """Every output of one ask. Whoever leaves early takes the ask out of the engine."""
        self.health()
        shape = await self.start()
        check(ask, shape, max_tokens)
        admission = self._admitting(shape)
        job = Job(str(next(self._numbers)), ask, labels, max_tokens, streamed)
        admission.admit(job.name, ask)
        waiter = self._waiters[job.name] = _Waiter(job, asyncio.Queue())
        self._commands.put(job)
        try:
            while True:
                output = await waiter.pieces.get()
                if isinstance(output, ServingError):
                    raise output
                yield output
                if not output.more:
                    return
        finally:
            admission.release(job.name)
            if self._waiters.pop(job.name, None) is not None:  # gone before the last output
                self._commands.put(job.name)

    def _admitting(self, shape: Shape) -> Admission:
        if self._admission is None:
            blocks = self._opened.result().blocks
            limits = self._limits
            self._admission = Admission(limits.waiting, limits.tokens, shape.block_size, blocks)
        return self._admission

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
                outputs = engine.step()
                if outputs:
                    self._tell(self._resolve, outputs)
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
                engine.add(command)
            except (ValueError, TypeError) as error:  # vLLM's own validation
                refused = InvalidRequestError(f"the engine refuses this prompt: {error}")
                self._tell(self._refuse, command.name, refused)

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended, so nobody waits
            logger.debug("the event loop ended before the engine")

    # Back in the loop.

    def _resolve(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            waiter = self._waiters.get(output.name)
            if waiter is None:  # it went away meanwhile
                continue
            if not output.more:
                del self._waiters[output.name]
            waiter.pieces.put_nowait(output)

    def _refuse(self, name: str, error: ServingError) -> None:
        waiter = self._waiters.pop(name, None)
        if waiter is not None:
            waiter.pieces.put_nowait(error)

    def _fail(self) -> None:
        for name in list(self._waiters):
            self._refuse(name, UnavailableError(f"the engine has ended: {self._error}"))
