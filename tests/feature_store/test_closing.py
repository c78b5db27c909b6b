"""What a store runs in the background ends with it."""

import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
from conftest_tools import opened, until

from feature_store import FeatureStore, core, retire
from feature_store.embedded import EmbeddedValkey

IDS = np.arange(1, 20_001)
CODES = np.zeros((20_000, 6), np.uint16)


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "JOIN_S", 60.0)  # longer than in earnest, for a busy machine


def mine(store: Any) -> list[threading.Thread]:
    inner = store if isinstance(store, FeatureStore) else store._store
    return list(inner._core.threads())


def test_a_near_cache_and_the_watch_over_a_hung_server(driver: str) -> None:
    with EmbeddedValkey() as server, opened(driver, server.url, near_cache_bytes=1 << 20) as store:
        os.kill(server.pid, signal.SIGSTOP)
        try:

            def watched() -> bool:
                store.lookup([1], deadline=0.005)
                return len(mine(store)) == 2

            until(watched)
            threads = mine(store)
            assert {thread.name[:5] for thread in threads} == {"near-", "watch"}
            store.close()
            assert not any(thread.is_alive() for thread in threads)
            for _ in range(3):  # whoever looks up yet begins nothing
                store.lookup([1], deadline=0.005)
            assert mine(store) == []
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_the_removal_of_a_version(
    valkey_url: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retire, "BUDGET_S", 0.0)
    monkeypatch.setattr(retire, "_REMOVE", 10)
    with opened(driver, valkey_url) as store:
        store.write(IDS, CODES)
        store.write(IDS, CODES, version="2")
        store.retire("2")
        (thread,) = mine(store)
        store.close()
        assert not thread.is_alive()
    with FeatureStore.connect(valkey_url) as other:
        left = {version.name: version.state for version in other.versions()}
        assert left == {"1": "active", "2": "retiring"}
