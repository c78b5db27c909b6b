"""The waiting room of the batcher: who is next, and with whom they may travel.

In: jobs with tickets. Out: batches of one group, the highest priority first, clients in turn by
the cost they were served, and each client's jobs in their order. No clock and no tasks in here.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")
# The Open Inference Protocol's schedule extension: 1 is the most urgent, 0 asks for the default.
PRIORITIES, DEFAULT_PRIORITY = 10, 5
Load = tuple[int, int]  # rows, and their cost


@dataclass(frozen=True, slots=True)
class Ticket:
    """How an item wishes to be served.

    rows: what counts against the batch's and the queue's size. nbytes: what its input holds, which
    the queue bounds too. cost: what the batch's cost bound and fairness count (tokens, pixels; rows
    where the rows are alike). group: only items of one
    group share a batch. deadline: seconds of time.monotonic().
    """

    rows: int = 1
    cost: int = 1
    group: Hashable = None
    priority: int = DEFAULT_PRIORITY
    deadline: float | None = None
    client: str = ""
    nbytes: int = 0


@dataclass(eq=False, slots=True)
class Job(Generic[In, Out]):
    """One item that waits; `future` is its result. queued_at: seconds of time.monotonic().

    predicted_s: seconds to its answer, as was known when it came; 0 where nobody asked.
    """

    item: In
    ticket: Ticket
    queued_at: float
    future: "asyncio.Future[Out]"
    predicted_s: float = 0.0

    def fail(self, error: BaseException) -> None:
        """Answer with an error unless there is an answer already."""
        if not self.future.done():
            self.future.set_exception(error)


class WaitingRoom(Generic[In, Out]):
    """Jobs in order of arrival, found by client and by what decides their turn."""

    def __init__(self) -> None:
        self.rows = 0
        self.nbytes = 0
        # Jobs by client, and by group, priority and client; each in order of arrival.
        self._of: dict[str, OrderedDict[Job[In, Out], None]] = {}
        self._queues: dict[Hashable, dict[int, dict[str, OrderedDict[Job[In, Out], None]]]] = {}
        self._rows_of: dict[str, int] = {}
        self._bytes_of: dict[str, int] = {}
        # Rows and cost by group, priority and client.
        self._loads: dict[tuple[Hashable, int, str], Load] = {}
        self._virtual: dict[str, float] = {}
        self._now = 0.0  # virtual time of the last job that was taken

    def push(self, job: Job[In, Out]) -> None:
        """Let a job wait."""
        ticket = job.ticket
        if ticket.client not in self._of:
            # A client that was away does not come back with credit for its absence.
            credit = self._virtual.get(ticket.client, 0.0)
            self._virtual[ticket.client] = max(credit, self._now)
            self._of[ticket.client] = OrderedDict()
            self._rows_of[ticket.client] = 0
            self._bytes_of[ticket.client] = 0
        levels = self._queues.setdefault(ticket.group, {})
        level = levels.setdefault(ticket.priority, {})
        level.setdefault(ticket.client, OrderedDict())[job] = None
        self._of[ticket.client][job] = None
        self._count(ticket, 1)

    def discard(self, job: Job[In, Out]) -> None:
        """Take a job out, if it still waits."""
        ticket = job.ticket
        mine = self._of.get(ticket.client)
        if mine is None or job not in mine:
            return
        del mine[job]
        self._count(ticket, -1)
        if not mine:
            del self._of[ticket.client], self._rows_of[ticket.client]
            del self._bytes_of[ticket.client]
        levels = self._queues[ticket.group]
        level = levels[ticket.priority]
        del level[ticket.client][job]
        if not level[ticket.client]:
            del level[ticket.client]
        if not level:
            del levels[ticket.priority]
        if not levels:
            del self._queues[ticket.group]

    def ahead(self, ticket: Ticket | None) -> dict[Hashable, Load]:
        """The load of each group that is served before a newcomer; None: of all.

        What is less urgent is not; of what is as urgent, another client's only up to the cost that
        the newcomer's own client would then have been served.
        """
        costs: dict[str, int] = {}  # of what is as urgent, by client
        if ticket is not None:
            for (_, priority, client), (_, cost) in self._loads.items():
                if priority == ticket.priority:
                    costs[client] = costs.get(client, 0) + cost
            own = costs.pop(ticket.client, 0) + ticket.cost
        found: dict[Hashable, Load] = {}
        for (group, priority, client), (rows, cost) in self._loads.items():
            if ticket is not None:
                if priority > ticket.priority:
                    continue
                if priority == ticket.priority and costs.get(client, 0) > own:
                    share = own / costs[client]
                    rows, cost = math.ceil(rows * share), math.ceil(cost * share)
            before = found.get(group, (0, 0))
            found[group] = before[0] + rows, before[1] + cost
        return found

    def soonest(self, ticket: Ticket) -> float:
        """The earliest deadline of what would travel with a newcomer: its own client's, as urgent.

        Infinity where there is none. Another client's is no reason to refuse: it is the newcomer's
        turn then.
        """
        levels = self._queues.get(ticket.group, {})
        queues = (
            level.get(ticket.client, ()) for p, level in levels.items() if p <= ticket.priority
        )
        deadlines = (job.ticket.deadline for queue in queues for job in queue)
        return min((at for at in deadlines if at is not None), default=math.inf)

    def take(self, bounds: Callable[[Ticket], Load]) -> list[Job[In, Out]]:
        """The next batch; its first job even if that alone is more than the bounds.

        bounds: rows and cost of a batch that begins with such a ticket.
        """
        batch: list[Job[In, Out]] = []
        job = self._first()
        rows, cost = (0, 0) if job is None else bounds(job.ticket)
        while job is not None:
            batch.append(job)
            self.discard(job)
            client = job.ticket.client
            self._now = max(self._now, self._virtual[client])
            self._virtual[client] += job.ticket.cost
            rows -= job.ticket.rows
            cost -= job.ticket.cost
            job = self._next(job.ticket.group, rows, cost) if rows > 0 and cost > 0 else None
        if not self._of:
            self._virtual.clear()
            self._now = 0.0
        return batch

    def displace(self, ticket: Ticket, over: int, *, nbytes: bool = False) -> list[Job[In, Out]]:
        """Take out the newest jobs of the client that holds the most rows, `over` rows of them.

        None, and nothing is taken out, if the newcomer would then hold more than that client, or
        is less urgent than what it would displace. nbytes: bytes instead of rows.
        """
        held = self._bytes_of if nbytes else self._rows_of
        most = max(held, key=lambda client: held[client])
        mine = held.get(ticket.client, 0) + (ticket.nbytes if nbytes else ticket.rows)
        if most == ticket.client or mine > held[most] - over:
            return []
        displaced: list[Job[In, Out]] = []
        for job in reversed(self._of[most]):
            if over <= 0:
                break
            if job.ticket.priority < ticket.priority:
                continue
            displaced.append(job)
            over -= job.ticket.nbytes if nbytes else job.ticket.rows
        if over > 0:
            return []
        for job in displaced:
            self.discard(job)
        return displaced

    def clear(self) -> list[Job[In, Out]]:
        """Take out every job."""
        jobs = [job for mine in self._of.values() for job in mine]
        for job in jobs:
            self.discard(job)
        return jobs

    def _count(self, ticket: Ticket, sign: int) -> None:
        """Add a job's sizes to all sums, or take them off."""
        self.rows += sign * ticket.rows
        self.nbytes += sign * ticket.nbytes
        self._rows_of[ticket.client] += sign * ticket.rows
        self._bytes_of[ticket.client] += sign * ticket.nbytes
        key = ticket.group, ticket.priority, ticket.client
        rows, cost = self._loads.get(key, (0, 0))
        left = rows + sign * ticket.rows
        if left:
            self._loads[key] = left, cost + sign * ticket.cost
        else:
            del self._loads[key]

    def _turn(self, job: Job[In, Out]) -> tuple[float, float]:
        return self._virtual[job.ticket.client], job.queued_at

    def _first(self) -> Job[In, Out] | None:
        """The job that is next of all: most urgent, then least served client, then oldest."""
        heads = [
            next(iter(queue))
            for levels in self._queues.values()
            for queue in levels[min(levels)].values()
        ]
        return min(heads, key=lambda job: (job.ticket.priority, *self._turn(job)), default=None)

    def _next(self, group: Hashable, rows: int, cost: int) -> Job[In, Out] | None:
        """The next job of a group that still fits."""
        levels = self._queues.get(group, {})
        for priority in sorted(levels):
            heads = (next(iter(queue)) for queue in levels[priority].values())
            fits = [h for h in heads if h.ticket.rows <= rows and h.ticket.cost <= cost]
            if fits:
                return min(fits, key=self._turn)
        return None
