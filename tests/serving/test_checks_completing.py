"""Debts that are worked off: an engine that is away, ads that change or end, what never works."""

import asyncio

from feature_store import Status
from serving.checks.completing import TRIES, Turn
from serving.checks.owed import Owed
from serving.errors import UnavailableError
from tests.serving.checks_support import Parts, until


async def test_what_is_owed_is_completed(parts: Parts) -> None:
    store = parts.bench.store
    await parts.put(1, "casino")
    await parts.put(2, "dress")
    await store.activate("e1-s1")
    assert await parts.bench.owed.count() == 2
    assert await parts.bench.completer.turn() == Turn(2, 2)
    assert await parts.bench.owed.count() == 0
    found = await store.lookup([1, 2], deadline=10)
    assert found.status.tolist() == [Status.BLOCKED, Status.HIT]
    assert found.flags.tolist() == [0, 0]
    # The ad changes: its own block goes, a human's stays.
    await parts.put(1, "dress")
    await store.block([2], "complaint", source="human")
    await parts.put(2, "hat")
    assert await parts.bench.completer.turn() == Turn(2, 2)
    found = await store.lookup([1, 2], deadline=10)
    assert found.status.tolist() == [Status.HIT, Status.BLOCKED]


async def test_an_ad_that_changes_while_it_is_judged_is_judged_again(parts: Parts) -> None:
    await parts.put(1, "dress")
    parts.engine.gate.clear()
    turn = asyncio.create_task(parts.bench.completer.turn())
    await until(lambda: bool(parts.engine.asked))
    await parts.put(1, "casino")
    parts.engine.gate.set()
    assert await turn == Turn(1, 1)
    assert await parts.bench.owed.count() == 1
    assert await parts.bench.completer.turn() == Turn(1, 1)
    await parts.bench.store.activate("e1-s1")
    assert (await parts.bench.store.lookup([1], deadline=10)).status.tolist() == [Status.BLOCKED]


async def test_what_is_owed_survives_an_engine_that_is_away(parts: Parts) -> None:
    from ray.exceptions import RayActorError

    await parts.put(1, "casino")
    parts.engine.away = RayActorError()
    await parts.bench.completer.turn()
    assert await parts.bench.owed.count() == 1
    parts.engine.away = None
    worker = asyncio.create_task(parts.bench.completer.run(parts.bench.engine))
    async with asyncio.timeout(30):
        while await parts.bench.owed.count():
            await asyncio.sleep(0.02)
    worker.cancel()
    await parts.bench.store.activate("e1-s1")
    assert (await parts.bench.store.lookup([1], deadline=10)).status.tolist() == [Status.BLOCKED]


async def test_an_ad_that_has_ended_is_owed_nothing(parts: Parts) -> None:
    await parts.put(1, "dress")
    (sequence,) = await parts.contents.sequences([1])
    await parts.contents.end(1, sequence)
    assert await parts.bench.completer.turn() == Turn(1, 1)
    assert await parts.bench.owed.count() == 0
    assert not parts.engine.asked


async def test_a_worker_killed_between_taking_and_settling_costs_no_verdict(parts: Parts) -> None:
    await parts.put(1, "casino")
    parts.engine.gate.clear()
    turn = asyncio.create_task(parts.bench.completer.turn())
    await until(lambda: bool(parts.engine.asked))
    turn.cancel()  # as its process would be
    await asyncio.gather(turn, return_exceptions=True)
    parts.engine.gate.set()
    assert (await parts.bench.owed.lag()).taken == 1
    assert await parts.bench.completer.turn() == Turn(0, 0)  # still leased
    other = Owed(parts.bench.client, parts.bench.store.keys, lease_s=0.0)
    (debt,) = await other.take(1)
    assert (debt.ad_id, debt.deliveries) == (1, 2)
    await other.retry(debt, 0)
    assert await parts.bench.completer.turn() == Turn(1, 1)
    await parts.bench.store.activate("e1-s1")
    assert (await parts.bench.store.lookup([1], deadline=10)).status.tolist() == [Status.BLOCKED]


async def test_what_fails_again_and_again_becomes_a_dead_letter(parts: Parts) -> None:
    await parts.put(1, "casino")
    await parts.put(2, "dress", picture=None)
    for attempt in range(TRIES):
        parts.engine.away = UnavailableError("it died of this ad")
        assert await parts.bench.owed.count() == 2, attempt
        await parts.bench.completer.turn()
    assert await parts.bench.owed.count() == 0
    letters = await parts.bench.owed.dead(10)
    assert sorted(letter.ad_id for letter in letters) == [1, 2]
    assert "it died of this ad" in letters[0].reason
    parts.engine.away = None
    assert await parts.bench.owed.revive(1) == 1
    assert await parts.bench.completer.turn() == Turn(1, 1)
    assert len(await parts.bench.owed.dead(10)) == 1


async def test_owed_relevance_is_stored_for_whoever_asks_next(parts: Parts) -> None:
    await parts.put(5, "casino")
    await parts.bench.owed.add_query([5], "casino")
    assert await parts.bench.completer.turn() == Turn(2, 2)
    found = await parts.results("relevance", query="Casino ", ad_ids=[5])
    assert (found[0]["label"], found[0]["source"]) == ("yes", "cache")
