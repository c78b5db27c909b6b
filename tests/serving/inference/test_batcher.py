"""What the batcher promises, whatever is submitted: bounds, order, fairness, and no wasted work."""

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batcher import Answer, Batcher, Computed, Limits
from serving.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
)
from serving.service_times import ServiceTimes
from serving.waiting import Ticket
from tests.serving.inference.gates import Gate, running, submit_all, until


async def test_what_waits_while_the_model_is_busy_is_one_batch() -> None:
    gate = Gate()
    async with running(gate, Limits(rows=8)) as batcher:
        first = await submit_all(batcher, [Ticket()])
        await until(lambda: len(gate.batches) == 1)
        rest = await submit_all(batcher, [Ticket()] * 5, first=2)
        gate.open()
        answers = await asyncio.gather(*first, *rest)
        assert [answer.value for answer in answers] == [2, 4, 6, 8, 10, 12]
        assert gate.batches == [[1], [2, 3, 4, 5, 6]]
        assert [answer.rows for answer in answers] == [1, 5, 5, 5, 5, 5]
        assert answers[0].queue_s <= answers[1].queue_s
        stages = (answers[0].input_s, answers[0].compute_s, answers[0].output_s)
        assert stages == (0.001, 0.002, 0.003)


tickets = st.builds(
    Ticket,
    rows=st.integers(1, 5),
    cost=st.integers(1, 9),
    group=st.sampled_from("ab"),
    priority=st.integers(1, 3),
    client=st.sampled_from(["one", "two", "three"]),
)


@settings(max_examples=150, deadline=None)
@given(
    wanted=st.lists(tickets, min_size=1, max_size=30),
    cancelled=st.sets(st.integers(1, 30)),
    rows=st.integers(1, 8),
    cost=st.integers(1, 20),
)
async def test_batches_keep_their_bounds_and_compute_each_item_once(
    wanted: list[Ticket], cancelled: set[int], rows: int, cost: int
) -> None:
    gate = Gate()
    async with running(gate, Limits(rows=rows, cost=cost)) as batcher:
        blocker = await submit_all(batcher, [Ticket(group="blocker")], first=0)
        await until(lambda: bool(gate.batches))
        tasks = await submit_all(batcher, wanted)
        for item in cancelled:
            if item <= len(tasks):
                tasks[item - 1].cancel()
        gate.open()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*blocker)
    kept = [item for item in range(1, len(wanted) + 1) if item not in cancelled]
    assert sorted(item for batch in gate.batches[1:] for item in batch) == kept
    assert batcher.waiting_rows == 0
    for item, result in enumerate(results, 1):
        if item in cancelled:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert isinstance(result, Answer)
            assert result.value == item * 2
    for batch in gate.batches[1:]:
        parts = [wanted[item - 1] for item in batch]
        assert len({part.group for part in parts}) == 1
        if len(parts) > 1:
            assert sum(part.rows for part in parts) <= rows
            assert sum(part.cost for part in parts) <= cost
    # Of one client, group and priority, items are computed in the order in which they came.
    order = [item for batch in gate.batches[1:] for item in batch]
    for place, item in enumerate(order):
        for later in order[place + 1 :]:
            one, two = wanted[item - 1], wanted[later - 1]
            if (one.client, one.group, one.priority) == (two.client, two.group, two.priority):
                assert item < later


async def test_urgent_items_go_first() -> None:
    gate = Gate()
    async with running(gate, Limits(rows=2)) as batcher:
        tasks = await submit_all(batcher, [Ticket()])
        await until(lambda: bool(gate.batches))
        levels = [5, 5, 9, 1, 1, 3]
        tasks += await submit_all(batcher, [Ticket(priority=p) for p in levels], first=2)
        gate.open()
        await asyncio.gather(*tasks)
    assert gate.batches == [[1], [5, 6], [7, 2], [3, 4]]


async def test_a_client_that_floods_does_not_delay_another() -> None:
    gate = Gate()
    async with running(gate, Limits(rows=1)) as batcher:
        tasks = await submit_all(batcher, [Ticket(client="flood")] * 30)
        tasks += await submit_all(batcher, [Ticket(client="other")] * 3, first=100)
        gate.open()
        await asyncio.gather(*tasks)
    served = [batch[0] for batch in gate.batches]
    places = [served.index(item) for item in (100, 101, 102)]
    assert all(place <= most for place, most in zip(places, (3, 5, 7), strict=True))


async def test_fairness_counts_cost_not_items() -> None:
    gate = Gate()
    async with running(gate, Limits(rows=1)) as batcher:
        tasks = await submit_all(batcher, [Ticket(client="blocker")])
        await until(lambda: bool(gate.batches))
        tasks += await submit_all(batcher, [Ticket(client="dear", cost=4)] * 4, first=10)
        tasks += await submit_all(batcher, [Ticket(client="cheap")] * 12, first=20)
        gate.open()
        await asyncio.gather(*tasks)
    head = [batch[0] for batch in gate.batches[1:11]]
    assert len([item for item in head if item < 20]) == 2


async def test_expired_items_are_answered_in_time_and_never_computed() -> None:
    gate = Gate()
    async with running(gate, Limits()) as batcher:
        tasks = await submit_all(batcher, [Ticket()])
        await until(lambda: bool(gate.batches))
        soon = time.monotonic() + 0.02
        late = await submit_all(batcher, [Ticket(deadline=soon)] * 3, first=2)
        results = await asyncio.gather(*late, return_exceptions=True)
        assert all(isinstance(result, DeadlineExceededError) for result in results)
        assert batcher.waiting_rows == 0
        gate.open()
        await asyncio.gather(*tasks)
        gone = Ticket(deadline=time.monotonic() - 1)
        with pytest.raises(DeadlineExceededError, match="on arrival"):
            await batcher.submit(9, gone)
    assert gate.batches == [[1]]


async def test_a_full_queue_refuses_at_once() -> None:
    gate = Gate()
    async with running(gate, Limits(rows=4, waiting=10)) as batcher:
        tasks = await submit_all(batcher, [Ticket()])
        await until(lambda: bool(gate.batches))
        tasks += await submit_all(batcher, [Ticket(rows=5)] * 2, first=2)
        with pytest.raises(OverloadedError, match="queue is full"):
            await batcher.submit(9, Ticket())
        gate.open()
        await asyncio.gather(*tasks)
        assert (await batcher.submit(9, Ticket())).value == 18


async def test_a_full_queue_makes_room_for_a_client_that_holds_less() -> None:
    gate = Gate()
    async with running(gate, Limits(rows=4, waiting=10)) as batcher:
        tasks = await submit_all(batcher, [Ticket(client="flood")])
        await until(lambda: bool(gate.batches))
        flood = await submit_all(batcher, [Ticket(client="flood")] * 10, first=2)
        other = await submit_all(batcher, [Ticket(client="other")] * 6, first=20)
        gate.open()
        shed = await asyncio.gather(*flood, return_exceptions=True)
        kept = await asyncio.gather(*other, return_exceptions=True)
        await asyncio.gather(*tasks)
    assert [isinstance(r, OverloadedError) for r in shed] == [False] * 5 + [True] * 5
    assert [isinstance(r, OverloadedError) for r in kept] == [False] * 5 + [True]


async def test_what_cannot_be_in_time_is_refused_at_once() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, Limits(rows=4), ServiceTimes({1: 1.0, 4: 2.0}))
    try:
        tasks = await submit_all(batcher, [Ticket(rows=4)] * 3)
        await until(lambda: bool(gate.batches))
        assert 4 < batcher.predicted_wait_s() <= 6
        with pytest.raises(OverloadedError):
            await batcher.submit(1, Ticket(deadline=time.monotonic() + 3))
        gate.open()
        await asyncio.gather(*tasks)
    finally:
        await batcher.close()
    assert gate.batches == [[1], [2], [3]]


async def test_a_prediction_that_is_too_dark_is_corrected_by_trying() -> None:
    gate = Gate(is_open=True)
    batcher: Batcher[int, int] = Batcher(gate, Limits(rows=4), ServiceTimes({1: 60.0}))
    for item in range(30):
        await batcher.submit(item, Ticket(deadline=time.monotonic() + 5))
    tasks = await submit_all(batcher, [Ticket(deadline=time.monotonic() + 5)] * 4)
    answers = await asyncio.gather(*tasks)
    assert [answer.value for answer in answers] == [2, 4, 6, 8]
    await batcher.close()


async def test_an_item_that_fails_fails_alone() -> None:
    async with running(Gate(is_open=True), Limits()) as batcher:
        jobs = [batcher.submit(item, Ticket()) for item in (1, -5, 3)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
    assert [isinstance(r, InvalidRequestError) for r in results] == [False, True, False]


async def test_a_broken_computation_fails_its_batch_and_no_later_one() -> None:
    calls: list[list[int]] = []

    async def compute(items: list[int]) -> Computed[int]:
        calls.append(items)
        if 1 in items:
            raise MemoryError("no memory left")
        return Computed(items, 0, 0, 0)

    batcher: Batcher[int, int] = Batcher(compute, Limits())
    with pytest.raises(MemoryError):
        await batcher.submit(1, Ticket())
    assert (await batcher.submit(2, Ticket())).value == 2
    await batcher.close()


async def test_drain_answers_what_waits_and_takes_no_more() -> None:
    gate = Gate()
    async with running(gate, Limits(rows=1)) as batcher:
        tasks = await submit_all(batcher, [Ticket()] * 3)
        drained = asyncio.create_task(batcher.drain())
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="being closed"):
            await batcher.submit(9, Ticket())
        assert not drained.done()
        gate.open()
        await drained
        assert [task.result().value for task in tasks] == [2, 4, 6]


async def test_close_answers_everyone() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, Limits(rows=1))
    tasks = await submit_all(batcher, [Ticket()] * 3)
    await until(lambda: bool(gate.batches))
    await batcher.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, UnavailableError) for result in results)
    gate.open()


async def test_the_queue_is_bounded_in_bytes_too() -> None:
    gate = Gate()
    async with running(gate, Limits(rows=4, waiting_bytes=100)) as batcher:
        tasks = await submit_all(batcher, [Ticket()])
        await until(lambda: bool(gate.batches))
        flood = await submit_all(batcher, [Ticket(client="flood", nbytes=30)] * 4, first=2)
        other = await submit_all(batcher, [Ticket(client="other", nbytes=40)], first=20)
        gate.open()
        shed = await asyncio.gather(*flood, return_exceptions=True)
        assert [isinstance(r, OverloadedError) for r in shed] == [False, False, True, True]
        assert [answer.value for answer in await asyncio.gather(*tasks, *other)] == [2, 40]
        assert (await batcher.submit(9, Ticket(nbytes=1000))).value == 18  # nothing else waits
