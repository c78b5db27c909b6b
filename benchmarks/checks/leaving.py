"""Checks whose callers go away: what is left of them in the engine, and what they cost in memory.

One in ten of the reads is cancelled at a random moment, seeded. Left over: requests that anybody
still knows of, in this process or in vLLM. Memory: slope of the resident size over the second half,
by least squares, in MB per 100,000 reads. What the allocator keeps for itself is given back first
(malloc_trim): batches of ever other sizes leave holes, and holes are no leak.
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

READS = 100_000
CANCELLED = 0.1
CLIENTS = 64
SAMPLES = 40
LONGEST_S = 0.05
BAR_MB = 2.0
LENGTH = 48


def run(folder: Path, size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure; always the tiny model, since bookkeeping is what is looked at."""
    del size
    sizes = values()
    with opened(random_bundle(folder, random_llm.TINY, seed), sizes) as desk:
        reads = max(1_000, round(READS * scale))
        found = desk.runner.run(_leave(desk, reads, np.random.default_rng(seed)))
    report.table("Checks: callers that go away", [found])
    return found | {"bar_mb_per_100k": BAR_MB, "leaked": sum(found[name] for name in _LEFT)}


_LEFT = ("known", "front", "running", "waiting", "in_flight", "uncached_tokens")


def trim() -> None:
    """Give back what is free; nothing where the C library has no such call."""
    gc.collect()
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


async def _leave(desk: Desk, reads: int, random: np.random.Generator) -> dict[str, Any]:
    leave = random.random(reads) < CANCELLED
    patience = random.uniform(0, LONGEST_S, reads)
    tokens = random.integers(3, 200, (reads, LENGTH))
    numbers = iter(range(reads))
    process, sizes, at = psutil.Process(), [], []
    cancelled = 0

    async def client() -> None:
        nonlocal cancelled
        for number in numbers:
            ask = Ask(tuple(map(int, tokens[number])))
            read = asyncio.create_task(desk.bridge.read([ask], desk.labels))
            if leave[number]:
                await asyncio.wait([read], timeout=float(patience[number]))
                cancelled += read.cancel()
                await asyncio.gather(read, return_exceptions=True)
            elif isinstance((await read)[0], ServingError):
                raise InvalidRunError("a read failed that nobody cancelled")
            if number % max(1, reads // SAMPLES) == 0:
                trim()
                at.append(number)
                sizes.append(process.memory_info().rss / 1e6)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    async with asyncio.timeout(30):
        while any(desk.raw.inside().values()) or desk.bridge.in_flight:
            await asyncio.sleep(0.01)
    half = len(at) // 2
    slope = float(np.polyfit(np.array(at[half:]) / 100_000, sizes[half:], 1)[0])
    left = desk.raw.inside() | {
        "in_flight": desk.bridge.in_flight,
        "uncached_tokens": desk.bridge.uncached_tokens,
    }
    return {"reads": reads, "cancelled": cancelled, **left, "mb_per_100k": round(slope, 3)}
