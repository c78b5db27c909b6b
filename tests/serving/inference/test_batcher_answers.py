"""How results are handed out: beside the next batch, and a few at a time."""

import asyncio

from serving.batcher import ANSWERED_AT_ONCE, Batcher, Computed, Limits
from serving.waiting import Ticket
from tests.serving.inference.gates import Gate, running, submit_all, until


async def test_the_next_batch_starts_before_the_last_one_is_answered() -> None:
    events: list[str] = []
    free = asyncio.Event()

    async def compute(items: list[int]) -> Computed[int]:
        events.append(f"computes {items}")
        if items == [1]:
            await free.wait()
        return Computed(items, 0, 0, 0)

    async def ask(item: int) -> None:
        await batcher.submit(item, Ticket())
        events.append(f"answered {item}")

    batcher: Batcher[int, int] = Batcher(compute, Limits(rows=2))
    first = asyncio.create_task(ask(1))
    await until(lambda: bool(events))
    rest = [asyncio.create_task(ask(item)) for item in (2, 3)]
    await until(lambda: batcher.waiting_rows == 2)
    free.set()
    await asyncio.gather(first, *rest)
    await batcher.close()
    assert events[:3] == ["computes [1]", "computes [2, 3]", "answered 1"]


async def test_newcomers_are_heard_between_answers() -> None:
    rows = 4 * ANSWERED_AT_ONCE
    gate, turns, answered_in = Gate(), 0, []
    async with running(gate, Limits(rows=rows)) as batcher:

        async def ask(item: int) -> None:
            await batcher.submit(item, Ticket())
            answered_in.append(turns)

        first = await submit_all(batcher, [Ticket()])
        await until(lambda: bool(gate.batches))
        tasks = [asyncio.create_task(ask(item)) for item in range(rows)]
        await until(lambda: batcher.waiting_rows == rows)
        gate.open()
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            turns += 1
        await asyncio.gather(*first, *tasks)
    assert len(gate.batches) == 2
    for turn in set(answered_in):
        assert answered_in.count(turn) <= ANSWERED_AT_ONCE


async def test_drain_waits_for_answers_that_are_being_handed_out() -> None:
    gate = Gate(is_open=True)
    async with running(gate, Limits(rows=64)) as batcher:
        tasks = await submit_all(batcher, [Ticket()] * 32)
        await batcher.drain()
        for _ in range(3):  # those who asked hear of it
            await asyncio.sleep(0)
        assert all(task.done() for task in tasks)


async def test_two_batches_run_at_once_and_a_third_waits() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, Limits(rows=2), at_once=2)
    try:
        tasks = []
        for place in range(2):
            tasks += await submit_all(batcher, [Ticket()], first=10 * place)
            await until(lambda: len(gate.batches) == place + 1)  # noqa: B023 - awaited here
        tasks += await submit_all(batcher, [Ticket()] * 3, first=20)
        assert gate.batches == [[0], [10]]
        drained = asyncio.create_task(batcher.drain())
        gate.open()
        await drained
        answers = await asyncio.gather(*tasks)
        assert [answer.value for answer in answers] == [0, 20, 40, 42, 44]
        assert gate.batches == [[0], [10], [20, 21], [22]]
    finally:
        await batcher.close()
