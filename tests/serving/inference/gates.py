"""A model that computes when it is let, and a batcher before it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from serving.batcher import Answer, Batcher, Computed, Limits
from serving.errors import InvalidRequestError, ServingError
from serving.waiting import Ticket


class Gate:
    """A model that computes when it is let: doubles its items, and remembers its batches."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.batches: list[list[int]] = []
        self._open = asyncio.Event()
        if is_open:
            self._open.set()

    def open(self) -> None:
        self._open.set()

    async def __call__(self, items: list[int]) -> Computed[int]:
        self.batches.append(items)
        await self._open.wait()
        results: list[int | ServingError] = [
            InvalidRequestError(f"item {item}") if item < 0 else item * 2 for item in items
        ]
        return Computed(results, 0.001, 0.002, 0.003)


@asynccontextmanager
async def running(gate: Gate, limits: Limits) -> AsyncIterator[Batcher[int, int]]:
    batcher: Batcher[int, int] = Batcher(gate, limits)
    try:
        yield batcher
    finally:
        await batcher.close()


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


async def submit_all(
    batcher: Batcher[int, int], tickets: list[Ticket], first: int = 1
) -> list[asyncio.Task[Answer[int]]]:
    """One task an item, in order; returns when all of them wait or were refused."""
    tasks = [
        asyncio.create_task(batcher.submit(item, ticket))
        for item, ticket in enumerate(tickets, first)
    ]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks
