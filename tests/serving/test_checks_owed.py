"""Owed verdicts: a stream that loses nothing, whoever dies, and says what it cannot settle."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import redis.asyncio

from feature_store.keys import Keys, tags
from serving.checks.owed import Lag, Owed
from serving.errors import OverloadedError


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(valkey_url) as opened:
        yield opened


def worker(client: redis.asyncio.Redis, lease_s: float = 60.0, most: int = 100) -> Owed:
    return Owed(client, Keys("ads"), most, lease_s)


async def test_what_a_dead_worker_took_goes_to_another(client: redis.asyncio.Redis) -> None:
    dead, alive = worker(client), worker(client, lease_s=0.0)
    await dead.add([1, 2, 3])
    taken = await dead.take(2)  # and it never comes back
    assert [debt.ad_id for debt in taken] == [1, 2]
    assert await worker(client).take(10) != []  # the third; the others are leased
    assert await worker(client).take(10) == []
    found = await alive.take(10)
    assert [(debt.ad_id, debt.deliveries) for debt in found] == [(1, 2), (2, 2), (3, 2)]
    assert [await alive.settle(debt) for debt in found] == [True, True, True]
    assert await alive.lag() == Lag(0, 0, 0, 0.0)
    assert await dead.settle(taken[0]) is False  # it comes back after all: nothing happens


async def test_an_ad_is_owed_once_however_often_it_is_added(client: redis.asyncio.Redis) -> None:
    owed = worker(client)
    await owed.add([1, 1, 2])
    first = await owed.take(10)
    assert [debt.ad_id for debt in first] == [1, 2]
    await owed.add([1])
    assert [await owed.holds(debt) for debt in first] == [False, True]
    assert await owed.settle(first[0]) is False
    assert await owed.count() == 2
    (again,) = await owed.take(10)
    assert (again.ad_id, again.since_ms) == (1, first[0].since_ms)  # it has waited since then
    assert await owed.settle(again)
    await owed.remove(2)
    assert await owed.holds(first[1]) is False
    assert await owed.count() == 0


async def test_queries_are_debts_of_their_own(client: redis.asyncio.Redis) -> None:
    owed = worker(client)
    await owed.add([7])
    await owed.add_query([7], "rote schühe")
    assert [(debt.ad_id, debt.query) for debt in await owed.take(10)] == [
        (7, ""),
        (7, "rote schühe"),
    ]


async def test_a_full_stream_refuses_and_loses_nothing(client: redis.asyncio.Redis) -> None:
    owed = worker(client, most=3)
    await owed.add([1, 2, 3])
    with pytest.raises(OverloadedError, match="owed"):
        await owed.add([3, 4])
    await owed.add([1, 2])  # what is owed already needs no room
    assert sorted(debt.ad_id for debt in await owed.take(10)) == [1, 2, 3]


async def test_dead_letters_are_seen_and_can_be_revived(client: redis.asyncio.Redis) -> None:
    owed = worker(client)
    await owed.add([1, 2, 3])
    for debt in await owed.take(10):
        await owed.bury(debt, f"no sense in {debt.ad_id}")
    assert (await owed.lag()).dead == 3
    assert [(letter.ad_id, letter.reason) for letter in await owed.dead(2)] == [
        (1, "no sense in 1"),
        (2, "no sense in 2"),
    ]
    await owed.add([2])  # its content has changed
    await owed.remove(3)
    assert [letter.ad_id for letter in await owed.dead(10)] == [1]
    assert await owed.revive(10) == 1
    assert await owed.dead(10) == []
    assert sorted(debt.ad_id for debt in await owed.take(10)) == [1, 2]


async def test_a_retry_goes_behind_the_others_and_keeps_its_age(
    client: redis.asyncio.Redis,
) -> None:
    owed = worker(client)
    await owed.add([1, 2])
    (first,) = await owed.take(1)
    await owed.retry(first, 5)
    found = await owed.take(10)
    assert [(debt.ad_id, debt.tries, debt.deliveries) for debt in found] == [(2, 0, 1), (1, 5, 1)]
    assert found[1].since_ms == first.since_ms


async def test_workers_that_hold_nothing_are_forgotten(
    client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds, gone = worker(client), worker(client)
    await holds.add([1])
    await holds.take(1)
    await gone.take(1)
    monkeypatch.setattr("serving.checks.owed.IDLE_S", -1.0)
    assert await gone.prune() == 1
    (group,) = await client.xinfo_groups(f"ads:owed-stream{{{tags()[0]}}}")
    assert (group["consumers"], group["pending"]) == (1, 1)


async def test_at_random_every_debt_is_settled_or_held(client: redis.asyncio.Redis) -> None:
    """Workers that die between taking and settling, against a count of what must be left."""
    random = np.random.default_rng(3)
    owing: set[int] = set()
    settled = 0
    for _ in range(300):
        action, ad_id = int(random.integers(5)), int(random.integers(1, 20))
        owed = worker(client, lease_s=0.0)
        if action <= 1:
            await owed.add([ad_id])
            owing.add(ad_id)
        elif action == 2:
            await owed.remove(ad_id)
            owing.discard(ad_id)
        else:
            taken = await owed.take(3)
            if action == 3:  # the others died with them
                for debt in taken[:2]:
                    settled += await owed.settle(debt)
                    owing.discard(debt.ad_id)
        assert await owed.count() == len(owing)
    assert settled > 20
    rest = await asyncio.wait_for(worker(client, lease_s=0.0).take(100), 10)
    assert {debt.ad_id for debt in rest} == owing
