"""A repository of small real bundles, and its models served by real servers without Ray."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Event, Thread

import pytest

from export import Bundle, Repository
from tests.serving.inference.bundles import MAKERS, publish
from tests.serving.inference.front import Front, serve


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """All of the bundles, version 1 each; nobody publishes into it."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    for name in MAKERS:
        publish(repository, name)
    return repository


@pytest.fixture
def own_bundles(tmp_path: Path) -> tuple[Repository, Callable[[str], Bundle]]:
    """An empty repository of the test's own, and what publishes a bundle into it by name."""
    repository = Repository(tmp_path / "models")
    return repository, lambda name: publish(repository, name)


@pytest.fixture(scope="session")
def front(bundles: Repository) -> Iterator[Front]:
    """Every bundle of the repository served in a thread, at the paths of the deployment."""
    started: Future[Front] = Future()
    stop = Event()
    thread = Thread(target=lambda: asyncio.run(serve(bundles, started, stop)), daemon=True)
    thread.start()
    yield started.result(timeout=60)
    stop.set()
    thread.join(timeout=30)
