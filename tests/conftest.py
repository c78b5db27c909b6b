"""What every room's tests share: one embedded Valkey a session, emptied before each test."""

from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, settings

from feature_store.embedded import EmbeddedValkey

# A busy machine is no wrong answer: properties have no time limit of their own.
settings.register_profile("tessera", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tessera")


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def valkey_url(valkey_server: EmbeddedValkey) -> str:
    """URL of a Valkey that holds nothing."""
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server.url
