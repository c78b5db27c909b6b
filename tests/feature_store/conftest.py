"""Fixtures of the store's tests; servers and helpers are in conftest_tools.py."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest_tools import KINDS, Backend, backend_of, opened

from feature_store import FeatureStore


@pytest.fixture(scope="session", params=KINDS)
def any_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with backend_of(request.param) as backend:
        yield backend


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(any_backend: Backend, driver: str) -> Iterator[Any]:
    any_backend.flush()
    with opened(driver, any_backend.url) as connected:
        yield connected


@pytest.fixture
def here(valkey_url: str) -> Iterator[FeatureStore]:
    """A sync store on the embedded server."""
    with FeatureStore.connect(valkey_url) as connected:
        yield connected
