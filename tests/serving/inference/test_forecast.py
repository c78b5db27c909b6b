"""What the batcher predicts and does with it: batch sizes, refusals that protect others."""

import time

import pytest

from serving.batcher import Batcher, Limits
from serving.errors import OverloadedError
from serving.forecast import Forecast
from serving.service_times import ServiceTimes
from serving.waiting import Ticket
from tests.serving.inference.gates import Gate, submit_all, until


def test_batches_are_as_large_as_is_worth_it() -> None:
    times = ServiceTimes({1: 1.0, 8: 2.0, 16: 3.2, 32: 8.0})
    assert times.efficient(32) == 16
    assert times.efficient(8) == 8
    assert times.efficient(4) == 1  # of sizes up to the bound, the best known
    assert times.efficient(64) == 64  # above what was measured the bound is as good a guess
    assert ServiceTimes().efficient(32) == 32
    for _ in range(50):
        times.learn(16, 9.0)
    assert times.efficient(32) == 8
    for _ in range(50):
        times.learn(13, 3.0)  # padded to 16
    assert times.efficient(32) == 16


def test_the_size_in_use_is_kept_while_it_is_good_enough() -> None:
    times = ServiceTimes({8: 1.0, 16: 2.05})
    assert times.efficient(16) == 8
    for _ in range(50):
        times.learn(16, 1.9)  # 5% faster
    assert times.efficient(16) == 8
    for _ in range(50):
        times.learn(16, 1.8)
    assert times.efficient(16) == 16


def test_alike_rates_make_the_smaller_batch() -> None:
    times = ServiceTimes({8: 0.9, 16: 1.61, 32: 3.2})
    assert times.efficient(32) == 16


def test_two_batches_at_once_halve_what_is_waited_for() -> None:
    forecast = Forecast((4, 1 << 30), ServiceTimes({4: 8.0}), at_once=2)
    assert forecast.all_s([(8, 8), (4, 4)]) == 12.0
    assert forecast.answering(Ticket(), 1.0, {None: (8, 8)}).seconds == 17.0


def test_a_newcomer_travels_with_what_waits_of_its_group() -> None:
    forecast = Forecast((4, 1 << 30), ServiceTimes({1: 10.0, 2: 15.0, 4: 26.0}))
    alone = forecast.answering(Ticket(), 5.0, {})
    assert (alone.seconds, alone.shared) == (15.0, True)
    second = forecast.answering(Ticket(), 5.0, {None: (1, 1)})
    assert (second.seconds, second.shared) == (20.0, True)
    behind = forecast.answering(Ticket(), 5.0, {None: (1, 1), "other": (4, 4)})
    assert behind.seconds == 46.0
    # A full batch waits: more will come until this one's turn, so its own is taken for full.
    later = forecast.answering(Ticket(), 5.0, {None: (4, 4)})
    assert (later.seconds, later.shared) == (57.0, False)


async def test_who_was_let_in_is_not_made_late_by_who_comes_next() -> None:
    gate = Gate()
    times = ServiceTimes({1: 100.0, 2: 150.0, 4: 260.0})
    batcher: Batcher[int, int] = Batcher(gate, Limits(rows=4), times)
    try:
        await submit_all(batcher, [Ticket(client="one")])
        await until(lambda: bool(gate.batches))
        now = time.monotonic()
        hasty = Ticket(client="one", deadline=now + 300)
        patient = Ticket(client="one", deadline=now + 1000)
        waiting = await submit_all(batcher, [hasty, patient], first=2)
        assert not any(task.done() for task in waiting)
        with pytest.raises(OverloadedError):  # three would take 260 s after the 100 s of what runs
            await batcher.submit(4, patient)
        # It is another client's turn, and what is more urgent does not give way either.
        others = [
            Ticket(client="two", deadline=now + 1000),
            Ticket(client="one", deadline=now + 1000, priority=1),
        ]
        admitted = await submit_all(batcher, others, first=5)
        assert not any(task.done() for task in admitted)
    finally:
        await batcher.close()
