"""Fixtures of the store's tests; servers and helpers are in conftest_tools.py."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest_near import CODES, IDS, warm
from conftest_tools import KINDS, Backend, backend_of, opened

from feature_store import FeatureStore, Flag, build, compiled, lookup, tracking

if compiled.fast is None and build.build():
    compiled.fast = compiled.load()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups without a deadline wait for a busy machine; benchmarks say how fast they are."""
    monkeypatch.setattr(lookup, "DEADLINE_S", 10.0)


@pytest.fixture(scope="session", params=KINDS)
def any_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with backend_of(request.param) as backend:
        yield backend


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


LAYOUTS: dict[str, dict[str, Any]] = {
    "default": {},
    "compact": {"layout": "compact", "expected_ads": 1000},
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Both layouts: what a store that begins versions of it is opened with."""
    return LAYOUTS[request.param]


@pytest.fixture
def store(any_backend: Backend, driver: str, loops: str, layout: dict[str, Any]) -> Iterator[Any]:
    any_backend.flush()
    with opened(driver, any_backend.url, **layout) as connected:
        yield connected


@pytest.fixture
def here(valkey_url: str, loops: str, layout: dict[str, Any]) -> Iterator[FeatureStore]:
    """A sync store on the embedded server."""
    with FeatureStore.connect(valkey_url, **layout) as connected:
        yield connected


@pytest.fixture
def plain(valkey_url: str) -> Iterator[FeatureStore]:
    """A sync store on the embedded server whose records have keys of their own."""
    with FeatureStore.connect(valkey_url) as connected:
        yield connected


@pytest.fixture(params=["compiled", "numpy"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of inner loops: the compiled ones, and numpy where they are not built."""
    if request.param == "numpy":
        monkeypatch.setattr(compiled, "fast", None)
    elif compiled.fast is None:
        if os.environ.get("CI"):
            pytest.fail("feature_store._fast is not built; CI must build it")
        pytest.skip("feature_store._fast is not built")
    return str(request.param)


@pytest.fixture
def writer(any_backend: Backend) -> Iterator[FeatureStore]:
    any_backend.flush()
    with FeatureStore.connect(any_backend.url) as store:
        store.write(IDS, CODES, Flag.PENDING)
        yield store


@pytest.fixture
def near(
    writer: FeatureStore, any_backend: Backend, loops: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FeatureStore]:
    for name in ("FRESH_S", "LOST_S"):  # a busy machine may keep silent for a second
        monkeypatch.setattr(tracking, name, 30.0)
    with FeatureStore.connect(any_backend.url, near_cache_bytes=1 << 20) as store:
        warm(store)
        yield store
