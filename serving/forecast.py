"""When a newcomer would be answered, and how large batches should be: the batcher's arithmetic.

In: the bounds of a batch, measured service times, what waits. Out: seconds, and rows of a batch.
No clock and no tasks in here.
"""

from dataclasses import dataclass

from serving.service_times import Lateness, ServiceTimes
from serving.waiting import Load, Ticket


@dataclass(frozen=True, slots=True)
class Answering:
    """A newcomer's prospects. seconds: until its answer, as the running means say.

    shared: it is in the same batch as all that waits of its group, and makes them later too.
    """

    seconds: float
    shared: bool


class Forecast:
    """Predictions for batches of at most `rows` and `cost`."""

    def __init__(self, rows: int, cost: int, times: ServiceTimes) -> None:
        self._rows, self._cost = rows, cost
        self.times = times
        self.lateness = Lateness()

    def bounds(self, ticket: Ticket) -> tuple[int, int]:
        """Rows and cost of a batch that begins with `ticket`'s item."""
        unit = max(1, ticket.cost // ticket.rows)
        return self._full(unit), self._cost

    def seconds(self, load: Load) -> float:
        """Seconds for rows that are alike."""
        rows, cost = load
        if not rows:
            return 0.0
        unit = max(1, cost // rows)
        return self.times.predict(rows, self._full(unit), unit)

    def answering(self, ticket: Ticket, running_s: float, ahead: dict[object, Load]) -> Answering:
        """Prospects behind a batch that runs for `running_s` more and the loads `ahead`, by group.

        What waits of its own group travels with it, in full batches first; its own is taken for
        full where one is full already, since more will come.
        """
        others = sum(self.seconds(load) for group, load in ahead.items() if group != ticket.group)
        rows, cost = ahead.get(ticket.group, (0, 0))
        rows, cost = rows + ticket.rows, cost + ticket.cost
        unit = max(1, cost // rows)
        full = self._full(unit)
        shared = rows <= full
        if not shared:
            rows = -(-rows // full) * full
        return Answering(running_s + others + self.times.predict(rows, full, unit), shared)

    def _full(self, unit: int) -> int:
        """Rows of a batch where each costs `unit`: as many as are worth it within the bounds."""
        return self.times.efficient(max(1, min(self._rows, self._cost // unit)), unit)
