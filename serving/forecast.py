"""When a newcomer would be answered, and how large batches should be: the batcher's arithmetic.

In: the bounds of a batch, measured service times, what waits. Out: seconds, and rows of a batch.
No clock and no tasks in here.
"""

from collections.abc import Hashable, Iterable, Mapping
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
    """Predictions for batches of at most `bounds` (rows, cost), of which `at_once` run together."""

    def __init__(self, bounds: Load, times: ServiceTimes, at_once: int = 1) -> None:
        self._rows, self._cost = bounds
        self._at_once = at_once
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

    def all_s(self, loads: Iterable[Load]) -> float:
        """Seconds until all of several loads have begun and most are done."""
        return sum(map(self.seconds, loads)) / self._at_once

    def answering(
        self, ticket: Ticket, running_s: float, ahead: Mapping[Hashable, Load]
    ) -> Answering:
        """Prospects when nothing can begin for `running_s`, behind the loads `ahead`, by group.

        What waits of its own group travels with it, in full batches first; its own is taken for
        full where one is full already, since more will come.
        """
        rows, cost = ahead.get(ticket.group, (0, 0))
        rows, cost = rows + ticket.rows, cost + ticket.cost
        unit = max(1, cost // rows)
        full = self._full(unit)
        batches = -(-rows // full)
        own = rows if batches == 1 else full
        before = [load for group, load in ahead.items() if group != ticket.group]
        before.append(((batches - 1) * full, (batches - 1) * full * unit))
        seconds = running_s + self.all_s(before) + self.times.predict(own, full, unit)
        return Answering(seconds, shared=batches == 1)

    def _full(self, unit: int) -> int:
        """Rows of a batch where each costs `unit`: as many as are worth it within the bounds."""
        return self.times.efficient(max(1, min(self._rows, self._cost // unit)), unit)
