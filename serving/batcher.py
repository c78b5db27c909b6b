"""A pull-based batcher: the moment the model is free it takes what waits, and never waits itself.

In: items with a ticket (rows, cost, group, priority, deadline, client). Out: each item's result
and where its time went. Batches hold one group (one shape), are bounded by rows and cost, and are
filled by priority and then fairly between clients. What has expired or was cancelled is never
computed; what cannot be in time, or finds the queue full, is refused at once. Plain asyncio.

Fairness is start-time fair queueing (Goyal, Vin, Cheng, 1996): each client has a virtual time that
grows with the cost it was served, and the lowest goes next.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from serving.errors import DeadlineExceededError, OverloadedError, ServingError, UnavailableError
from serving.waiting import Job, Ticket, WaitingRoom

In = TypeVar("In")
Out = TypeVar("Out")
# Weight of the newest measurement in the running mean of a batch size's seconds.
SMOOTHING = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one batch and of the queue. rows, cost: of a batch; waiting: rows in the queue."""

    rows: int = 32
    cost: int = 1 << 30
    waiting: int = 4096


@dataclass(frozen=True, slots=True)
class Computed(Generic[Out]):
    """One batch's results, in the order of its items, and the seconds of each stage."""

    results: Sequence[Out | ServingError]
    input_s: float
    compute_s: float
    output_s: float


@dataclass(frozen=True, slots=True)
class Answer(Generic[Out]):
    """One item's result, the rows of its batch, and the seconds it waited and of each stage."""

    value: Out
    rows: int
    queue_s: float
    input_s: float
    compute_s: float
    output_s: float


class ServiceTimes:
    """Seconds that batches of each size take: a running mean, begun by the warm-up's figures."""

    def __init__(self, seconds: Mapping[int, float] | None = None) -> None:
        self._mean = dict(seconds or {})

    def learn(self, rows: int, seconds: float) -> None:
        """Take in one measurement."""
        mean = self._mean.get(rows, seconds)
        self._mean[rows] = mean + SMOOTHING * (seconds - mean)

    def predict(self, rows: int, limit: int) -> float:
        """Seconds to serve `rows` in batches of at most `limit`; 0 while nothing is known."""
        full, rest = divmod(rows, limit)
        return full * self._batch(limit) + (self._batch(rest) if rest else 0.0)

    def _batch(self, rows: int) -> float:
        if not self._mean:
            return 0.0
        above = [known for known in self._mean if known >= rows]
        if above:
            return self._mean[min(above)]
        largest = max(self._mean)
        return self._mean[largest] * rows / largest


class Batcher(Generic[In, Out]):
    """Runs `compute` on batches of items, one batch at a time, on the running event loop.

    compute: takes a batch's items, gives one result an item; a ServingError as a result fails that
    item alone. It starts with the first item; end it with `close()`.
    """

    def __init__(
        self,
        compute: Callable[[list[In]], Awaitable[Computed[Out]]],
        limits: Limits,
        times: ServiceTimes | None = None,
    ) -> None:
        self._compute = compute
        self._limits = limits
        self._times = times or ServiceTimes()
        self._room: WaitingRoom[In, Answer[Out]] = WaitingRoom()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy_until = 0.0
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue."""
        return self._room.rows

    async def submit(self, item: In, ticket: Ticket) -> Answer[Out]:
        """Queue one item and wait for its result.

        Raises OverloadedError (the queue is full, or the deadline is sooner than the predicted
        wait), DeadlineExceededError, UnavailableError (closed), or what its computation raised.
        """
        if self._closed:
            raise UnavailableError("this version of the model is being closed; ask again")
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="batcher")
        now = time.monotonic()
        self._admit(ticket, now)
        loop = asyncio.get_running_loop()
        job: Job[In, Answer[Out]] = Job(item, ticket, now, loop.create_future())
        self._room.push(job)
        self._idle.clear()
        self._wake.set()
        timer = None
        if ticket.deadline is not None:
            # The caller hears at its deadline, not when the model next looks.
            delay = max(0.0, ticket.deadline - now)
            timer = loop.call_later(delay, self._expire, job)
        try:
            return await job.future
        finally:
            self._room.discard(job)
            if timer is not None:
                timer.cancel()

    def predicted_wait_s(self) -> float:
        """Seconds until an item submitted now would begin, from what waits and what runs."""
        running = max(0.0, self._busy_until - time.monotonic())
        return running + self._times.predict(self._room.rows, self._limits.rows)

    async def drain(self) -> None:
        """Refuse new items, and return when all that waited are answered."""
        self._closed = True
        await self._idle.wait()

    async def close(self) -> None:
        """Stop; what still waits fails with UnavailableError."""
        self._closed = True
        closed = UnavailableError("the model was closed before this could be computed")
        self._fail(self._room.clear(), closed)
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    def _admit(self, ticket: Ticket, now: float) -> None:
        """Refuse at once what would be refused later."""
        if ticket.deadline is not None:
            if ticket.deadline <= now:
                raise DeadlineExceededError("the deadline had passed on arrival")
            wait = self.predicted_wait_s()
            own = self._times.predict(ticket.rows, self._limits.rows)
            # An idle model always tries: refusing by a prediction that has become too dark would
            # leave nothing to measure, and so go on for ever.
            if wait > 0 and now + wait + own > ticket.deadline:
                left_ms = (ticket.deadline - now) * 1000
                raise OverloadedError(
                    f"{left_ms:.0f} ms are left and about {(wait + own) * 1000:.0f} ms are needed; "
                    "allow more time or come back later"
                )
        over = self._room.rows + ticket.rows - self._limits.waiting
        if over > 0 and self._room.rows:
            # A client that floods makes room for the others: its own newest items go.
            displaced = self._room.displace(ticket, over)
            if not displaced:
                raise self._full()
            self._fail(displaced, self._full())

    def _full(self) -> OverloadedError:
        return OverloadedError(
            f"the queue is full ({self._room.rows} rows of {self._limits.waiting} wait, about "
            f"{self.predicted_wait_s():.2f} s of work); come back later"
        )

    def _expire(self, job: Job[In, Answer[Out]]) -> None:
        self._room.discard(job)
        job.fail(DeadlineExceededError("the deadline passed before there was a result"))

    async def _work(self) -> None:
        while True:
            batch = self._take()
            if batch:
                await self._run(batch)
                continue
            self._idle.set()
            self._wake.clear()
            await self._wake.wait()

    def _take(self) -> list[Job[In, Answer[Out]]]:
        while batch := self._room.take(self._limits.rows, self._limits.cost):
            now = time.monotonic()
            late = [job for job in batch if job.ticket.deadline and job.ticket.deadline <= now]
            if not late:
                return batch
            for job in late:  # a busy event loop comes here before the jobs' own timers
                self._expire(job)
            if on_time := [job for job in batch if job not in late]:
                return on_time
        return []

    async def _run(self, batch: list[Job[In, Answer[Out]]]) -> None:
        started = time.monotonic()
        rows = sum(job.ticket.rows for job in batch)
        self._busy_until = started + self._times.predict(rows, self._limits.rows)
        task = asyncio.ensure_future(self._compute([job.item for job in batch]))
        try:
            await asyncio.wait([task])
        finally:
            self._busy_until = 0.0
            if not task.done():
                self._fail(batch, UnavailableError("the model was closed while it computed this"))
        error = task.exception()
        if error is not None:
            self._fail(batch, error)
            return
        computed = task.result()
        self._times.learn(rows, time.monotonic() - started)
        for job, result in zip(batch, computed.results, strict=True):
            if isinstance(result, ServingError):
                job.fail(result)
            elif not job.future.done():
                stages = (computed.input_s, computed.compute_s, computed.output_s)
                job.future.set_result(Answer(result, rows, started - job.queued_at, *stages))

    def _fail(self, jobs: Sequence[Job[In, Answer[Out]]], error: BaseException) -> None:
        for job in jobs:
            job.fail(error)
