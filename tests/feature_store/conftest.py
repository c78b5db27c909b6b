"""Fixtures of the store's tests; servers and helpers are in conftest_tools.py."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest_tools import KINDS, Backend, backend_of, opened

from feature_store import FeatureStore, build, compiled

if compiled.fast is None and build.build():
    compiled.fast = compiled.load()


@pytest.fixture(scope="session", params=KINDS)
def any_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with backend_of(request.param) as backend:
        yield backend


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(any_backend: Backend, driver: str, loops: str) -> Iterator[Any]:
    any_backend.flush()
    with opened(driver, any_backend.url) as connected:
        yield connected


@pytest.fixture
def here(valkey_url: str, loops: str) -> Iterator[FeatureStore]:
    """A sync store on the embedded server."""
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
