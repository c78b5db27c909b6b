"""An open loop that keeps every request: when it was due, how long it took, what came of it.

In: a call, a rate, seconds. Out: arrays, a place a request. `benchmarks.load` keeps histograms; a
queue can only be simulated beside the arrivals themselves.
"""

import asyncio
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..load import Request

SEED = 7
GIVE_UP_S = 30.0


@dataclass(slots=True)
class Arrivals:
    """planned: seconds (n,) from the start; latency_s: (n,) from then; outcomes: (n,)."""

    planned: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    outcomes: NDArray[np.str_]
    seconds: float = 0.0
    late_s: float = 0.0  # how late the latest request left
    late_p99_s: float = 0.0

    def counts(self) -> dict[str, int]:
        """How many requests ended how."""
        names, counts = np.unique(self.outcomes, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def good(self, within_s: float = np.inf) -> int:
        """Requests that were answered in time."""
        return int(((self.outcomes == "ok") & (self.latency_s <= within_s)).sum())

    def p99_ms(self) -> float:
        """Of what was answered; infinite where nothing was."""
        answered = self.latency_s[self.outcomes == "ok"]
        return float(np.quantile(answered, 0.99) * 1000) if len(answered) else float("inf")


async def arrive(call: Request, rate: float, seconds: float, seed: int = SEED) -> Arrivals:
    """Poisson arrivals, the same ones for a rate and a seed; latency from when each was due."""
    random = np.random.default_rng(seed)
    planned = np.cumsum(random.exponential(1 / rate, max(int(rate * seconds), 20)))
    found = Arrivals(planned, np.zeros(len(planned)), np.zeros(len(planned), "U32"))
    late = np.zeros(len(planned))
    begun = time.perf_counter() + 0.05

    async def one(number: int, due: float) -> None:
        try:
            async with asyncio.timeout(GIVE_UP_S):
                found.outcomes[number] = await call(number)
        except TimeoutError:
            found.outcomes[number] = f"none in {GIVE_UP_S:.0f} s"
        found.latency_s[number] = time.perf_counter() - due

    async with asyncio.TaskGroup() as tasks:
        for number, after in enumerate(planned.tolist()):
            await asyncio.sleep(max(begun + after - time.perf_counter(), 0))
            late[number] = time.perf_counter() - begun - after
            tasks.create_task(one(number, begun + after))
    found.seconds = time.perf_counter() - begun
    found.late_s = float(late.max())
    found.late_p99_s = float(np.quantile(late, 0.99))
    return found
