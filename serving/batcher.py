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
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from serving.errors import DeadlineExceededError, OverloadedError, ServingError, UnavailableError
from serving.forecast import Forecast
from serving.service_times import ServiceTimes
from serving.waiting import Job, Ticket, WaitingRoom

In = TypeVar("In")
Out = TypeVar("Out")
ANSWERED_AT_ONCE = 4  # results that are handed out before the event loop looks for newcomers


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds. rows, cost: of a batch; waiting, waiting_bytes: rows and inputs in the queue."""

    rows: int = 32
    cost: int = 1 << 30
    waiting: int = 4096
    waiting_bytes: int = 256 << 20


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


class Batcher(Generic[In, Out]):
    """Runs `compute` on batches of items, `at_once` batches at a time, on the running event loop.

    compute: takes a batch's items, gives one result an item; a ServingError as a result fails that
    item alone. It starts with the first item; end it with `close()`.
    """

    def __init__(
        self,
        compute: Callable[[list[In]], Awaitable[Computed[Out]]],
        limits: Limits,
        times: ServiceTimes | None = None,
        at_once: int = 1,
    ) -> None:
        self._compute = compute
        self._limits = limits
        bounds = limits.rows, limits.cost
        self._forecast = Forecast(bounds, times or ServiceTimes(), at_once)
        self._room: WaitingRoom[In, Answer[Out]] = WaitingRoom()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy_until = [0.0] * at_once  # when each batch that runs should be done; 0: none does
        self._workers: list[asyncio.Task[None]] = []
        self._answering: set[asyncio.Task[None]] = set()
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
        if not self._workers:
            places = range(len(self._busy_until))
            self._workers = [asyncio.create_task(self._work(place)) for place in places]
        now = time.monotonic()
        predicted_s = self._admit(ticket, now)
        loop = asyncio.get_running_loop()
        job: Job[In, Answer[Out]] = Job(item, ticket, now, loop.create_future(), predicted_s)
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

    def foresee(self, ticket: Ticket) -> None:
        """Raise OverloadedError if `submit` would, for the deadline; nothing is queued."""
        now = time.monotonic()
        if ticket.deadline is not None and ticket.deadline > now and not self._closed:
            self._in_time(ticket, ticket.deadline, now)

    def predicted_wait_s(self, ticket: Ticket | None = None) -> float:
        """Seconds until an item with this ticket would begin; None: until all that waits is done.

        Counts what runs, and of what waits only that which would be served before it.
        """
        ahead = self._room.ahead(ticket)
        return self._running_s(time.monotonic()) + self._forecast.all_s(ahead.values())

    async def drain(self) -> None:
        """Refuse new items, and return when all that waited are answered."""
        self._closed = True
        await self._idle.wait()
        await asyncio.gather(*self._answering)

    async def close(self) -> None:
        """Stop; what still waits fails with UnavailableError."""
        self._closed = True
        closed = UnavailableError("the model was closed before this could be computed")
        self._fail(self._room.clear(), closed)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await asyncio.gather(*self._answering)

    def _running_s(self, now: float) -> float:
        """Seconds until the next batch can begin."""
        return max(0.0, min(self._busy_until) - now)

    def _admit(self, ticket: Ticket, now: float) -> float:
        """Refuse at once what would be refused later; predicted seconds to the answer otherwise.

        Without a deadline nobody asks how long it is, and 0 is returned.
        """
        predicted_s = 0.0
        if ticket.deadline is not None:
            if ticket.deadline <= now:
                raise DeadlineExceededError("the deadline had passed on arrival")
            predicted_s = self._in_time(ticket, ticket.deadline, now)
        self._make_room(ticket, self._room.rows + ticket.rows - self._limits.waiting)
        over = self._room.nbytes + ticket.nbytes - self._limits.waiting_bytes
        self._make_room(ticket, over, nbytes=True)
        return predicted_s

    def _in_time(self, ticket: Ticket, deadline: float, now: float) -> float:
        """Predicted seconds to the answer; OverloadedError if it, or who was let in, were late."""
        running_s, ahead = self._running_s(now), self._room.ahead(ticket)
        found = self._forecast.answering(ticket, running_s, ahead)
        needed = found.seconds * self._forecast.lateness.factor
        soonest = self._room.soonest(ticket) if found.shared else deadline
        # An idle model always tries: refusing by a prediction that has become too dark would
        # leave nothing to measure, and so go on for ever.
        if (running_s or ahead) and now + needed > min(deadline, soonest):
            left_ms = (deadline - now) * 1000
            raise OverloadedError(
                f"{left_ms:.0f} ms are left and about {needed * 1000:.0f} ms are needed; "
                "allow more time or come back later",
                retry_after_s=self.predicted_wait_s(ticket),
            )
        return found.seconds

    def _make_room(self, ticket: Ticket, over: int, *, nbytes: bool = False) -> None:
        """A client that floods makes room for the others: its own newest items go."""
        if over > 0 and self._room.rows:
            displaced = self._room.displace(ticket, over, nbytes=nbytes)
            if not displaced:
                raise self._full()
            self._fail(displaced, self._full())

    def _full(self) -> OverloadedError:
        wait = self.predicted_wait_s()
        return OverloadedError(
            f"the queue is full ({self._room.rows} rows of {self._limits.waiting} and "
            f"{self._room.nbytes >> 20} MiB of {self._limits.waiting_bytes >> 20} wait, about "
            f"{wait:.2f} s of work); come back later",
            retry_after_s=wait,
        )

    def _expire(self, job: Job[In, Answer[Out]]) -> None:
        if not job.future.done():
            self._learn(job, time.monotonic())
        self._room.discard(job)
        job.fail(DeadlineExceededError("the deadline passed before there was a result"))

    def _learn(self, job: Job[In, Answer[Out]], ended: float) -> None:
        self._forecast.lateness.learn(job.predicted_s, ended - job.queued_at)

    async def _work(self, place: int) -> None:
        while True:
            batch = self._take()
            if batch:
                await self._run(batch, place)
                continue
            if not any(self._busy_until):
                self._idle.set()
            self._wake.clear()
            await self._wake.wait()

    def _take(self) -> list[Job[In, Answer[Out]]]:
        while batch := self._room.take(self._forecast.bounds):
            now = time.monotonic()
            late = [job for job in batch if job.ticket.deadline and job.ticket.deadline <= now]
            if not late:
                return batch
            for job in late:  # a busy event loop comes here before the jobs' own timers
                self._expire(job)
            if on_time := [job for job in batch if job not in late]:
                return on_time
        return []

    async def _run(self, batch: list[Job[In, Answer[Out]]], place: int) -> None:
        started = time.monotonic()
        rows = sum(job.ticket.rows for job in batch)
        cost = sum(job.ticket.cost for job in batch)
        self._busy_until[place] = started + self._forecast.seconds((rows, cost))
        task = asyncio.ensure_future(self._compute([job.item for job in batch]))
        try:
            await asyncio.wait([task])
        finally:
            self._busy_until[place] = 0.0
            if not task.done():
                self._fail(batch, UnavailableError("the model was closed while it computed this"))
        error = task.exception()
        if error is not None:
            self._fail(batch, error)
            return
        computed = task.result()
        ended = time.monotonic()
        self._forecast.times.learn(rows, ended - started, max(1, cost // rows))
        # The newest one's: its prediction knew of the others in its batch.
        self._learn(max(batch, key=lambda job: (job.predicted_s > 0, job.queued_at)), ended)
        # The next batch starts before these are written: with the answers first the model stood
        # still for as long as they took.
        answering = asyncio.create_task(self._answer(batch, computed, rows, started))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)

    async def _answer(
        self, batch: list[Job[In, Answer[Out]]], computed: Computed[Out], rows: int, started: float
    ) -> None:
        """Hand out results, a few at a time: between them newcomers are heard, and refused."""
        stages = (computed.input_s, computed.compute_s, computed.output_s)
        for place, (job, result) in enumerate(zip(batch, computed.results, strict=True), 1):
            if isinstance(result, ServingError):
                job.fail(result)
            elif not job.future.done():
                job.future.set_result(Answer(result, rows, started - job.queued_at, *stages))
            if place % ANSWERED_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _fail(self, jobs: Sequence[Job[In, Answer[Out]]], error: BaseException) -> None:
        for job in jobs:
            job.fail(error)
