"""One running system a session: `python -m serving up` as a newcomer would start it, with keys.

`system` is used by every test that speaks HTTP or gRPC. Tests share it, so each writes ads of its
own ids (`fresh_ids`) and leaves the rest as it was.
"""

import hashlib
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from feature_store.ports import free_port
from tests.serving.cascade_support import WordTowers, add_towers
from tests.serving.checks_support import Parts, open_parts, words_repository
from tests.serving.support import System, start_up, wait_for_file, write_creatives


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("system")
    scopes = {"read": ["read"], "write": ["write"], "admin": ["admin"]}
    scopes["all"] = ["read", "write", "admin"]
    keys = {name: f"key-of-{name}-{os.urandom(8).hex()}" for name in scopes}
    key_file = folder / "keys.jsonl"
    key_file.write_text(
        "".join(
            json.dumps(
                {"name": n, "key_sha256": hashlib.sha256(k.encode()).hexdigest(), "scopes": s}
            )
            + "\n"
            for (n, k), s in zip(keys.items(), scopes.values(), strict=True)
        )
    )
    creatives = write_creatives(folder / "creatives")
    ready, log = folder / "out.json", folder / "up.log"
    ports = ("--port", str(free_port()), "--grpc-port", str(free_port()))
    process = start_up(
        "--json", str(ready), "--creatives", str(creatives), *ports, keys=key_file, log=log
    )
    try:
        wait_for_file(ready, process, log)
        report = json.loads(ready.read_text())
        yield System(
            http=report["served"]["http"],
            grpc=report["served"]["grpc"],
            keys=keys,
            key_file=key_file,
            report=report,
            creatives=creatives,
            log=log,
            process=process,
        )
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        code = process.wait(timeout=120)
    assert code == 0, f"Ctrl-C ended `up` with code {code}:\n{log.read_text()}"


@pytest.fixture(scope="session")
def id_ranges() -> Iterator[int]:
    return iter(itertools.count(1_000_000, 1_000))


@pytest.fixture
def fresh_ids(id_ranges: Iterator[int]) -> range:
    """A thousand ad ids that no other test uses."""
    first = next(id_ranges)
    return range(first, first + 1_000)


@pytest.fixture(scope="session")
def checks_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose only bundle judges words alone."""
    return words_repository(tmp_path_factory.mktemp("checks"))


@pytest.fixture
async def parts(
    checks_models: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Parts]:
    """A judge that answers over HTTP, with an engine that knows words."""
    monkeypatch.setenv("TESSERA_REDIS_URL", valkey_url)
    monkeypatch.setenv("TESSERA_MODELS", str(checks_models))
    async with open_parts(checks_models) as opened:
        yield opened


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a module's own that `revision` adds towers to."""
    return words_repository(tmp_path_factory.mktemp("checks"))


@pytest.fixture(scope="module")
def revision(models: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The revision of the towers of words in `models`."""
    return add_towers(models, tmp_path_factory.mktemp("towers"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the policies of `routed` lie."""
    (tmp_path / "policies").mkdir()
    return tmp_path / "policies"


@pytest.fixture
def towers(models: Path, revision: str) -> WordTowers:
    return WordTowers(models)


@pytest.fixture
async def routed(
    models: Path,
    towers: WordTowers,
    folder: Path,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Parts]:
    """`parts` with towers of words before the engine, and policies in `folder`."""
    monkeypatch.setenv("TESSERA_REDIS_URL", valkey_url)
    monkeypatch.setenv("TESSERA_MODELS", str(models))
    monkeypatch.setenv("TESSERA_POLICIES", str(folder))
    async with open_parts(models, towers) as opened:
        yield opened
