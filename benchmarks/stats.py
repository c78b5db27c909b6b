"""Statistics of interleaved measurements: medians, ratios, and how sure they are.

In: latencies of two or more subjects that took turns. Out: ratios with bootstrap intervals, and a
verdict that may be "inconclusive". Sequential blocks of the same subject differ by a third on
shared machines; interleaved ones by a few percent, so subjects always take turns (ABBA).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["met", "not met", "inconclusive"]
_BOOTSTRAPS = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 99% bootstrap interval."""

    value: float
    low: float
    high: float

    def at_most(self, bar: float) -> Verdict:
        """Whether the true value is at most `bar`."""
        if self.high <= bar:
            return "met"
        return "not met" if self.low > bar else "inconclusive"

    def at_least(self, bar: float) -> Verdict:
        """Whether the true value is at least `bar`."""
        if self.low >= bar:
            return "met"
        return "not met" if self.high < bar else "inconclusive"

    def judged(self, bar: float, least: bool = False) -> dict[str, Any]:
        """For the JSON line: the interval, the bar and the verdict."""
        verdict = self.at_least(bar) if least else self.at_most(bar)
        return {**self.shown(), "bar": bar, "verdict": verdict}

    def shown(self) -> dict[str, float]:
        """For the JSON line."""
        return {"value": self.value, "low": self.low, "high": self.high}


def abba(
    subjects: dict[str, Callable[[int], float]], rounds: int
) -> dict[str, NDArray[np.float64]]:
    """Run subjects in turn, forward and backward: name -> (2 * rounds,) measurements.

    A subject is called with the number of the case and returns what it measured. Every half round
    is another case, and every round begins with another subject: whoever runs twice in a row, or
    after a certain other, would gain by it.
    """
    names = list(subjects)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds):
        first = round_ % len(names)
        order = names[first:] + names[:first]
        for case, turn in ((2 * round_, order), (2 * round_ + 1, order[::-1])):
            for name in turn:
                taken[name].append(subjects[name](case))
    return {name: np.asarray(values) for name, values in taken.items()}


def ratio(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    quantile: float = 0.5,
    seed: int = 0,
) -> Interval:
    """Quantile of `one` over that of `other`, both (n,), bootstrapped in pairs on log ratios."""
    random = np.random.default_rng(seed)
    n = len(one)
    draws = random.integers(0, n, (_BOOTSTRAPS, n)) if n * _BOOTSTRAPS <= 2e7 else None
    logs = []
    for i in range(_BOOTSTRAPS if draws is not None else 200):
        pick = draws[i] if draws is not None else random.integers(0, n, n)
        above = np.quantile(one[pick], quantile)
        below = np.quantile(other[pick], quantile)
        logs.append(np.log(above) - np.log(below))
    low, high = np.exp(np.quantile(logs, [0.005, 0.995]))
    value = float(np.quantile(one, quantile) / np.quantile(other, quantile))
    return Interval(value, float(low), float(high))


def quantile(values: NDArray[np.float64], at: float, seed: int = 0) -> Interval:
    """A quantile of values (n,), bootstrapped."""
    return excess(values, (), at, seed)


def excess(
    one: NDArray[np.float64],
    others: Sequence[NDArray[np.float64]],
    at: float = 0.5,
    seed: int = 0,
) -> Interval:
    """Quantile of `one` less the quantiles of the others, each (n,), bootstrapped in pairs."""
    random = np.random.default_rng(seed)
    n = len(one)

    def difference(pick: NDArray[np.intp] | slice) -> float:
        less = sum(float(np.quantile(other[pick], at)) for other in others)
        return float(np.quantile(one[pick], at)) - less

    draws = _BOOTSTRAPS if n * _BOOTSTRAPS <= 2e7 else 200
    found = [difference(random.integers(0, n, n)) for _ in range(draws)]
    low, high = np.quantile(found, [0.005, 0.995])
    return Interval(difference(slice(None)), float(low), float(high))


def percentiles(
    values: NDArray[np.float64], at: Sequence[float] = (50, 90, 99)
) -> dict[str, float]:
    """Percentiles of values (n,) by name; p99 only where n >= 20,000 makes it mean something."""
    asked = [p for p in at if p < 99 or len(values) >= 20_000]
    return {f"p{p:g}": float(np.percentile(values, p)) for p in asked}


def control_holds(control: Interval, tolerance: float = 0.1) -> bool:
    """Whether a subject measured against itself came out even."""
    return 1 - tolerance <= control.value <= 1 + tolerance
