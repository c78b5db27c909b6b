"""Versions that go: at once for readers, bit by bit in the store, whoever began it."""

import threading
from typing import Any

import numpy as np
import pytest
import redis
from conftest_tools import opened, until

from feature_store import FeatureStore, Status, retire
from feature_store.core import Core
from feature_store.errors import UnknownVersionError, VersionInUseError
from feature_store.ops import Op
from feature_store.versions import Version

IDS = np.arange(1, 5001)
CODES = np.random.default_rng(9).integers(0, 65535, (5000, 6)).astype(np.uint16)


@pytest.fixture
def two(valkey_url: str, driver: str) -> Any:
    with opened(driver, valkey_url) as store:
        store.write(IDS, CODES)
        store.write(IDS, CODES, version="2")
        yield store


def names(store: Any) -> dict[str, str]:
    return {version.name: version.state for version in store.versions()}


def test_a_large_version_goes_in_the_background(
    two: Any, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retire, "BUDGET_S", 0.0)
    gone = two.retire("2")
    assert (gone.name, gone.state, gone.records) == ("2", "retiring", 5000)
    with pytest.raises(UnknownVersionError):
        two.lookup(IDS[:10], version="2")
    with pytest.raises(UnknownVersionError):
        two.write(IDS[:10], CODES[:10], version="2")
    until(lambda: names(two) == {"1": "active"})
    with redis.Redis.from_url(valkey_url) as client:
        assert not list(client.scan_iter("ads:r0002*", count=10_000))
    assert (two.lookup(IDS, deadline=5).status == Status.HIT).all()


def test_whoever_retires_next_goes_on(
    two: Any, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process ends in the middle: the version stays retiring, and its name cannot be used."""
    monkeypatch.setattr(retire, "BUDGET_S", 0.0)
    monkeypatch.setattr(retire, "go_on", lambda core, version: None)
    two.retire("2")
    assert names(two) == {"1": "active", "2": "retiring"}
    with FeatureStore.connect(valkey_url) as other:
        steps: list[tuple[int, int]] = []
        other.retire("2", wait=True, progress=lambda done, total: steps.append((done, total)))
        assert steps[-1] == (5000, 5000)
        assert steps == sorted(steps)
    assert names(two) == {"1": "active"}
    assert two.write(IDS[:3], CODES[:3], version="2").written == 3
    assert (two.lookup(IDS[:4], version="2").status == [1, 1, 1, 0]).all()


def test_a_version_that_is_retired_twice_is_removed_once(
    two: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate, removed, remove = threading.Event(), [], retire.remove

    def gated(core: Core, version: Version, *rest: Any) -> Op[bool]:
        if threading.current_thread().name == "retire":
            gate.wait(60)
            removed.append(version.name)
        return (yield from remove(core, version, *rest))

    monkeypatch.setattr(retire, "BUDGET_S", 0.0)
    monkeypatch.setattr(retire, "remove", gated)
    assert two.retire("2").state == two.retire("2").state == "retiring"
    gate.set()
    until(lambda: names(two) == {"1": "active"})
    inner = two if isinstance(two, FeatureStore) else two._store
    until(lambda: not inner._core.threads())
    assert removed == ["2"]
    assert not caplog.records


def test_what_is_served_is_not_retired(two: Any) -> None:
    with pytest.raises(VersionInUseError, match="activate another"):
        two.retire("1")
    with pytest.raises(UnknownVersionError, match="kept: 1, 2"):
        two.retire("3")


def test_a_rollback_needs_a_version_that_is_left(two: Any) -> None:
    two.activate("2")
    assert two.rollback().name == "1"
    assert two.rollback().name == "2"
    two.retire("1", wait=True)
    with pytest.raises(UnknownVersionError, match="roll"):
        two.rollback()
