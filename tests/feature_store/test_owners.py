"""Who may use a store: threads and forks share one, event loops do not; counts stay exact."""

import asyncio
import os
import threading

import numpy as np
import pytest
from conftest_near import CODES, IDS

from feature_store import AsyncFeatureStore, FeatureStore, Status
from feature_store.errors import InputError, UnavailableError
from feature_store.tally import Tallies


def test_a_store_of_another_loop_says_so(valkey_url: str) -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def connect() -> AsyncFeatureStore:
        return await AsyncFeatureStore.connect(valkey_url)

    try:
        store = first.run_until_complete(connect())
        with pytest.raises(InputError, match="connect another one in this loop"):
            second.run_until_complete(store.lookup([1]))
        assert first.run_until_complete(store.lookup([1])).status.tolist() == [Status.MISS]
        second.run_until_complete(store.close())  # from elsewhere: its own loop closes them
        first.run_until_complete(asyncio.sleep(0))
    finally:
        first.close()
        second.close()


async def test_an_async_store_is_not_carried_over_a_fork(valkey_url: str) -> None:
    async with AsyncFeatureStore.connect(valkey_url) as store:
        await store.write([1], CODES[:1])
        child = os.fork()
        if child == 0:
            good = False
            try:
                store.lookup([1]).send(None)
            except UnavailableError:
                good = True
            finally:
                os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert (await store.lookup([1])).status.tolist() == [Status.HIT]


def test_no_count_is_lost_between_threads() -> None:
    tallies = Tallies()

    def work() -> None:
        for _ in range(20_000):
            tallies.mine().events["x"] += 1
            tallies.mine().latency_us[3] += 1

    for _ in range(3):  # threads that have ended count as well
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert tallies.sum().events["x"] == 240_000
    assert tallies.sum().latency_us[3] == 240_000


def test_a_forked_child_counts_anew(valkey_url: str) -> None:
    with FeatureStore.connect(valkey_url) as store:
        store.write(IDS[:10], CODES[:10])
        store.lookup(IDS[:10])
        child = os.fork()
        if child == 0:
            good = False
            try:
                before = store.counters.get("lookups", 0)
                found = store.lookup(IDS[:10])
                good = before == 0 and np.array_equal(found.codes, CODES[:10])
                good = good and store.counters["lookups"] == 1
            finally:
                os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert store.counters["lookups"] == 1
