"""Predicted service times: begun by the warm-up, kept true by what is measured."""

import asyncio
import time

import pytest

from serving.batcher import Batcher, Limits
from serving.errors import OverloadedError
from serving.service_times import Lateness, ServiceTimes
from serving.waiting import Ticket
from tests.serving.inference.gates import Gate, submit_all, until


def test_service_times_follow_what_is_measured() -> None:
    times = ServiceTimes({1: 0.1, 8: 0.4})
    assert times.predict(1, 8) == pytest.approx(0.1)
    assert times.predict(3, 8) == pytest.approx(0.4)
    assert times.predict(17, 8) == pytest.approx(0.9)
    for _ in range(100):
        times.learn(8, 0.8)
    assert times.predict(8, 8) == pytest.approx(0.8, rel=1e-3)
    assert ServiceTimes().predict(100, 8) == 0
    assert ServiceTimes({4: 0.4}).predict(8, 8) == pytest.approx(0.8)


def test_rows_that_cost_more_are_predicted_by_their_own_kind() -> None:
    times = ServiceTimes({1: 0.1, 8: 0.4}, unit=16)
    assert times.predict(8, 8, 16) == pytest.approx(0.4)
    assert times.predict(8, 8, 128) == pytest.approx(3.2)  # scaled while it was never seen
    times.learn(8, 2.0, 128)
    assert times.predict(8, 8, 128) == pytest.approx(2.0)
    assert times.predict(8, 8, 16) == pytest.approx(0.4)
    assert times.predict(8, 8, 64) == pytest.approx(1.0)  # nearer to 128 than to 16


def test_only_so_many_costs_are_remembered() -> None:
    times = ServiceTimes({1: 1.0})
    for unit in range(2, 200):
        times.learn(1, float(unit), unit)
    assert times.predict(1, 1, 199) == pytest.approx(199.0)
    assert times.predict(1, 1, 1) == pytest.approx(1.0, rel=0.1)  # from its neighbours


def test_waits_that_were_longer_than_predicted_make_the_next_prediction_longer() -> None:
    lateness = Lateness()
    assert lateness.factor == 1
    for _ in range(100):
        lateness.learn(0.1, 0.2)
    assert lateness.factor == pytest.approx(2.0, rel=1e-3)
    for _ in range(100):
        lateness.learn(0.1, 0.05)
    assert lateness.factor == 1  # sooner than predicted: never admitted on the strength of it
    for waited in (0.05, 0.15) * 100:
        lateness.learn(0.1, waited)
    assert 2.5 < lateness.factor < 3.5  # right on average is late half the time
    lateness.learn(1e-6, 10.0)
    assert lateness.factor < 3.5


async def test_the_wait_that_is_predicted_is_that_of_the_one_who_asks() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, Limits(rows=1), ServiceTimes({1: 1.0}))
    try:
        tasks = await submit_all(batcher, [Ticket(client="flood")])
        await until(lambda: bool(gate.batches))
        tasks += await submit_all(batcher, [Ticket(client="flood", priority=5)] * 8)
        tasks += await submit_all(batcher, [Ticket(client="bulk", priority=9)] * 4)

        def wait(client: str, priority: int) -> float:
            return batcher.predicted_wait_s(Ticket(client=client, priority=priority))

        assert 12 < batcher.predicted_wait_s() <= 13
        assert 8 < wait("flood", 5) <= 9  # behind its own, before what is less urgent
        assert 1 < wait("other", 5) <= 2  # one of the flood's turns comes before it
        assert 0 < wait("other", 1) <= 1  # only what runs
        with pytest.raises(OverloadedError) as shed:
            await batcher.submit(1, Ticket(client="flood", deadline=time.monotonic() + 3))
        assert shed.value.retry_after in ("8", "9")
        gate.open()
        await asyncio.gather(*tasks)
    finally:
        await batcher.close()


async def test_long_rows_are_known_to_take_longer() -> None:
    gate = Gate()
    times = ServiceTimes({1: 0.01, 4: 0.04}, unit=16)
    batcher: Batcher[int, int] = Batcher(gate, Limits(rows=4, cost=512), times)
    try:
        tasks = await submit_all(batcher, [Ticket(group="short", cost=16)])
        await until(lambda: bool(gate.batches))
        tasks += await submit_all(batcher, [Ticket(group="long", cost=512)] * 4)
        # One such row a batch, as the cost bound says, and 32 times the short one's time.
        assert 1.28 <= batcher.predicted_wait_s() <= 1.3
        gate.open()
        await asyncio.gather(*tasks)
    finally:
        await batcher.close()
