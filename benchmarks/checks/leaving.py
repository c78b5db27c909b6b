"""Checks whose callers go away: what is left of them in the engine, and what they cost in memory.

One in ten of the reads is cancelled at a random moment, seeded. Left over: requests that anybody
still knows of, in this process or in vLLM. Memory: slope of the resident size by least squares, in
MB per 100,000 reads, after as many reads of the same traffic, which fill what is bounded: oneDNN
keeps kernels of the last 128 sizes of a batch for each layer's products, some 1.4 MB a size of the
tiny model. What the allocator keeps for itself is given back before each sample (malloc_trim):
batches of ever other sizes leave holes, and holes are no leak; `untrimmed` is without that.
"""

import asyncio
import ctypes
import gc
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from serving.errors import ServingError
from serving.llm.asks import Ask

from .. import random_llm, report
from ..errors import InvalidRunError
from .opened import Desk, opened, random_bundle, values

READS = 200_000  # and as many before, to fill what is bounded
CANCELLED = 0.1
CLIENTS = 64
SAMPLES = 40
LONGEST_S = 0.05
BAR_MB = 2.0
LENGTHS = (4, 64)  # tokens of a prompt: batches of thousands of sizes


def run(folder: Path, size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure; always the tiny model, since bookkeeping is what is looked at."""
    del size
    sizes = values()
    with opened(random_bundle(folder, random_llm.TINY, seed), sizes) as desk:
        reads = max(1_000, round(READS * scale))
        found = desk.runner.run(_leave(desk, reads, seed))
    report.table("Checks: callers that go away", [found])
    return found | {"bar_mb_per_100k": BAR_MB, "leaked": sum(found[name] for name in _LEFT)}


_LEFT = ("known", "front", "running", "waiting", "in_flight", "uncached_tokens")


def trim() -> None:
    """Give back what is free; nothing where the C library has no such call."""
    gc.collect()
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


async def _leave(desk: Desk, reads: int, seed: int) -> dict[str, Any]:
    numbers = iter(range(2 * reads))
    memory = _Memory()
    cancelled = 0

    async def client() -> None:
        nonlocal cancelled
        for number in numbers:
            random = np.random.default_rng((seed, number))
            tokens = random.integers(3, 200, random.integers(*LENGTHS, endpoint=True))
            read = asyncio.create_task(
                desk.bridge.read([Ask(tuple(map(int, tokens)))], desk.labels)
            )
            if random.random() < CANCELLED:
                await asyncio.wait([read], timeout=random.uniform(0, LONGEST_S))
                cancelled += read.cancel()
                await asyncio.gather(read, return_exceptions=True)
            elif isinstance((await read)[0], ServingError):
                raise InvalidRunError("a read failed that nobody cancelled")
            if number >= reads and number % max(1, reads // SAMPLES) == 0:
                memory.sample(number)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    async with asyncio.timeout(30):
        while any(desk.raw.inside().values()) or desk.bridge.in_flight:
            await asyncio.sleep(0.01)
    left = desk.raw.inside() | {
        "in_flight": desk.bridge.in_flight,
        "uncached_tokens": desk.bridge.uncached_tokens,
    }
    return {"reads": 2 * reads, "cancelled": cancelled, **left, **memory.slopes()}


class _Memory:
    """Resident size of this process in MB, by the number of reads."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._samples: list[tuple[int, float, float]] = []

    def sample(self, number: int) -> None:
        before = self._process.memory_info().rss / 1e6
        trim()
        self._samples.append((number, before, self._process.memory_info().rss / 1e6))

    def slopes(self) -> dict[str, float]:
        number, before, after = np.array(self._samples).T
        return {
            name: round(float(np.polyfit(number / 100_000, sizes, 1)[0]), 3)
            for name, sizes in (("mb_per_100k", after), ("untrimmed", before))
        }
