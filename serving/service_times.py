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
# Of the lateness (Jacobson, "Congestion avoidance and control", 1988), as TCP's timers have them.
MEAN_GAIN, DEVIATION_GAIN, DEVIATIONS = 1 / 8, 1 / 4, 4
# Waits under LEAST_S say little; a stall of the machine must not refuse everybody for long.
LEAST_S, MOST = 0.01, 4.0
KEPT = 64  # costs a row that are remembered; the one measured longest ago goes first
# A rate at least this share of the best one is as good: what is left is measuring error. The size
# in use is kept down to the second share: larger batches break what was promised to who waits.
AS_GOOD, GOOD_ENOUGH = 0.97, 0.94


class ServiceTimes:
    """Seconds that batches take, by cost a row and rows: running means.

    seconds: of the warm-up, by rows; unit: what a row of it cost.
    """

    def __init__(self, seconds: Mapping[int, float] | None = None, unit: int = 1) -> None:
        self._means: OrderedDict[int, dict[int, float]] = OrderedDict()
        self._sizes = sorted(seconds or ())  # that batches are padded to
        # Sizes in use, by bound and cost a row; those that no measurement has come after.
        self._in_use: dict[tuple[int, int], int] = {}
        self._known: set[tuple[int, int]] = set()
        if seconds:
            self._means[unit] = dict(seconds)

    def learn(self, rows: int, seconds: float, unit: int = 1) -> None:
        """Take in one batch of `rows` that cost `unit` each."""
        means = self._means.setdefault(unit, {})
        rows = next((size for size in self._sizes if size >= rows), rows)
        mean = means.get(rows, seconds)
        means[rows] = mean + SMOOTHING * (seconds - mean)
        self._means.move_to_end(unit)
        if len(self._means) > KEPT:
            self._means.popitem(last=False)
        self._known.clear()

    def predict(self, rows: int, limit: int, unit: int = 1) -> float:
        """Seconds to serve `rows` in batches of at most `limit`; 0 while nothing is known."""
        if not self._means:
            return 0.0
        nearest = self._nearest(unit)
        means, scale = self._means[nearest], unit / nearest
        full, rest = divmod(rows, max(1, limit))
        seconds = full * _batch(means, limit) + (_batch(means, rest) if rest else 0.0)
        return seconds * scale

    def efficient(self, limit: int, unit: int = 1) -> int:
        """Rows of the smallest batch, up to `limit`, whose rate is as good as the best known.

        Larger ones only make everybody wait longer, and are not always as fast: their activations
        outgrow the caches. The warm-up runs large ones of a slow model once; what serves is
        measured again and again, with what every batch costs besides.
        """
        key = limit, unit
        if key not in self._known:
            self._known.add(key)
            if len(self._in_use) > KEPT:
                self._in_use.clear()
            self._in_use[key] = self._choose(limit, unit, self._in_use.get(key))
        return self._in_use[key]

    def _choose(self, limit: int, unit: int, in_use: int | None) -> int:
        means = self._means[self._nearest(unit)] if self._means else {}
        if max(means, default=0) < limit:
            return limit  # above what was ever measured, the bound itself is as good a guess
        rates = {rows: rows / max(s, 1e-9) for rows, s in means.items() if rows <= limit}
        best = max(rates.values(), default=0.0)
        if in_use in rates and rates[in_use] >= GOOD_ENOUGH * best:
            return in_use
        return min((rows for rows, rate in rates.items() if rate >= AS_GOOD * best), default=limit)

    def _nearest(self, unit: int) -> int:
        """The known cost a row that is nearest to `unit`."""
        return min(self._means, key=lambda known: abs(math.log(known / unit)))


class Lateness:
    """How much longer waits are than was predicted; whoever is admitted shall not expire.

    The mean ratio alone would let half of those expire whose deadline is just far enough.
    """

    def __init__(self) -> None:
        self._mean, self._deviation = 1.0, 0.0

    def learn(self, predicted_s: float, waited_s: float) -> None:
        """Take in one wait that has ended, or that its caller gave up."""
        if predicted_s < LEAST_S:
            return
        error = min(waited_s / predicted_s, MOST) - self._mean
        self._mean += MEAN_GAIN * error
        self._deviation += DEVIATION_GAIN * (abs(error) - self._deviation)

    @property
    def factor(self) -> float:
        """What to multiply a predicted wait by; at least 1."""
        return max(1.0, self._mean + DEVIATIONS * self._deviation)


def _batch(means: Mapping[int, float], rows: int) -> float:
    above = [known for known in means if known >= rows]
    if above:
        return means[min(above)]
    largest = max(means)
    return means[largest] * rows / largest
