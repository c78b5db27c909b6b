"""How long batches take: what the batcher predicts waits with.

In: measurements of batches, and those of the warm-up. Out: seconds for rows that are alike. Rows
differ in what they cost (tokens, pixels): each cost a row has means of its own, and one that was
never seen is scaled from its nearest neighbour.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping

# Weight of the newest measurement in the running mean of a batch size's seconds.
SMOOTHING = 0.2
KEPT = 64  # costs a row that are remembered; the one measured longest ago goes first


class ServiceTimes:
    """Seconds that batches take, by cost a row and rows: running means.

    seconds: of the warm-up, by rows; unit: what a row of it cost.
    """

    def __init__(self, seconds: Mapping[int, float] | None = None, unit: int = 1) -> None:
        self._means: OrderedDict[int, dict[int, float]] = OrderedDict()
        if seconds:
            self._means[unit] = dict(seconds)

    def learn(self, rows: int, seconds: float, unit: int = 1) -> None:
        """Take in one batch of `rows` that cost `unit` each."""
        means = self._means.setdefault(unit, {})
        mean = means.get(rows, seconds)
        means[rows] = mean + SMOOTHING * (seconds - mean)
        self._means.move_to_end(unit)
        if len(self._means) > KEPT:
            self._means.popitem(last=False)

    def predict(self, rows: int, limit: int, unit: int = 1) -> float:
        """Seconds to serve `rows` in batches of at most `limit`; 0 while nothing is known."""
        if not self._means:
            return 0.0
        nearest = min(self._means, key=lambda known: abs(math.log(known / unit)))
        means, scale = self._means[nearest], unit / nearest
        full, rest = divmod(rows, max(1, limit))
        seconds = full * _batch(means, limit) + (_batch(means, rest) if rest else 0.0)
        return seconds * scale


def _batch(means: Mapping[int, float], rows: int) -> float:
    above = [known for known in means if known >= rows]
    if above:
        return means[min(above)]
    largest = max(means)
    return means[largest] * rows / largest
