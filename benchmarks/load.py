"""Open-loop load: requests leave when they were planned to, however slow the answers are.

In: an async function that makes one request, a rate, a duration. Out: latencies from the
*intended* send time (Gil Tene's wrk2), in an HdrHistogram, so that a stall of the server counts
for every request it held up. A run in which the generator itself lags is invalid.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import InvalidRunError

Request = Callable[[int], Awaitable[str]]  # number of the request -> its outcome, "ok" or a fault
_LONGEST_US = 60_000_000


def _histogram() -> Any:
    from hdrh.histogram import HdrHistogram

    return HdrHistogram(1, _LONGEST_US, 3)


@dataclass(slots=True)
class LoadResult:
    """What came of a run."""

    rate: float  # requests per second that were asked for
    sent: int
    seconds: float
    outcomes: Counter[str] = field(default_factory=Counter)
    latency_us: Any = field(default_factory=_histogram)
    lag_us: Any = field(default_factory=_histogram)  # how late requests left

    def percentile_ms(self, percentile: float) -> float:
        """Latency from the intended send time."""
        return float(self.latency_us.get_value_at_percentile(percentile)) / 1000

    def summary(self) -> dict[str, Any]:
        """For the JSON line; p99 only of 20,000 requests and more."""
        shown = (50, 90, 99) if self.sent >= 20_000 else (50, 90)
        return {
            "rate": self.rate,
            "sent": self.sent,
            "seconds": round(self.seconds, 3),
            "outcomes": dict(self.outcomes),
            **{f"p{p}_ms": self.percentile_ms(p) for p in shown},
            "generator_lag_p99_ms": float(self.lag_us.get_value_at_percentile(99)) / 1000,
        }


async def open_loop(
    request: Request, rate: float, seconds: float, seed: int = 0, most_lag_ms: float = 50.0
) -> LoadResult:
    """Send Poisson arrivals at `rate` per second for `seconds`.

    Raises InvalidRunError when 1 in 100 requests left more than `most_lag_ms` late: the figures
    would then be about the generator.
    """
    random = np.random.default_rng(seed)
    count = max(int(rate * seconds), 1)
    planned = np.cumsum(random.exponential(1 / rate, count))
    result = LoadResult(rate, count, 0.0)
    start = time.perf_counter() + 0.01

    async def one(number: int, intended: float) -> None:
        result.lag_us.record_value(_us(time.perf_counter() - intended))
        try:
            outcome = await request(number)
        except (OSError, TimeoutError) as error:
            outcome = type(error).__name__
        result.outcomes[outcome] += 1
        result.latency_us.record_value(_us(time.perf_counter() - intended))

    async with asyncio.TaskGroup() as tasks:
        for number, after in enumerate(planned.tolist()):
            wait = start + after - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.create_task(one(number, start + after))
    result.seconds = time.perf_counter() - start
    lag = float(result.lag_us.get_value_at_percentile(99)) / 1000
    if lag > most_lag_ms:
        raise InvalidRunError(
            f"1 in 100 requests left {lag:.1f} ms late, {most_lag_ms} ms are allowed: lower the "
            "rate or give the generator a core of its own"
        )
    return result


def _us(seconds: float) -> int:
    return min(max(int(seconds * 1e6), 1), _LONGEST_US)
