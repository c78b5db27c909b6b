"""Promises that no other file shows: what is logged, built, raised, read back and unlinked."""

import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import redis

from feature_store import FeatureStore, build, compiled, core, errors

IDS = np.arange(1, 2001)
CODES = np.zeros((2000, 6), np.uint16)


def test_corrupt_rows_are_told_once_an_interval(
    plain: FeatureStore,
    loops: str,
    valkey_url: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain.write(IDS[:5], CODES[:5])
    with redis.Redis.from_url(valkey_url) as client:
        client.set(plain.keys.record(2, 1), b"x" * 24)

    def told(seconds: float) -> int:
        monkeypatch.setattr(core, "WARN_S", seconds)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "feature_store"):
            for _ in range(4):
                plain.lookup(IDS[:5])
        return sum("foreign or corrupt" in record.getMessage() for record in caplog.records)

    assert told(3600.0) == 1
    assert told(3600.0) == 0
    assert told(0.0) == 4
    assert plain.counters["corrupt"] == 12


def test_without_a_compiler_nothing_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "target", lambda: tmp_path / "missing.so")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not build.build()
    assert not list(tmp_path.iterdir())


def test_loops_of_older_sources_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a checkout has them that was not built anew: the store runs on numpy then."""
    for module in (SimpleNamespace(), SimpleNamespace(INTERFACE=1)):
        monkeypatch.setattr(compiled, "import_module", lambda name, module=module: module)
        assert compiled.load() is None


def test_every_error_has_one_base() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) > 10
    assert all(issubclass(kind, errors.FeatureStoreError) for kind in kinds)


def test_one_record_is_updated_without_reading_its_bucket(valkey_url: str) -> None:
    with (
        FeatureStore.connect(valkey_url, layout="compact", expected_ads=2000) as store,
        redis.Redis.from_url(valkey_url) as client,
    ):
        store.write(IDS, CODES)
        with client.monitor() as seen:
            store.write(IDS[:1], CODES[:1] + 1)
            client.echo("done")
            commands = list(iter(lambda: seen.next_command()["command"], "ECHO done"))
        assert store.lookup(IDS[:2]).codes.tolist() == [[1] * 6, [0] * 6]
    (named, *others) = [each.split(" ", 2) for each in commands if re.match(r"\w+ ads:b", each)]
    assert named[0] == "HMGET"
    field = named[2].split(" ")[-1]
    assert field == r"\x01"  # of this ad alone
    assert [(name, rest.split(" ")[-2]) for name, _, rest in others] == [("HSET", field)]


def test_retired_records_are_unlinked(plain: FeatureStore, valkey_url: str) -> None:
    """Their memory is freed beside the server's main thread."""
    plain.write(IDS, CODES)
    plain.write(IDS, CODES, version="2")
    with redis.Redis.from_url(valkey_url) as client:
        client.config_resetstat()
        plain.retire("2", wait=True)
        done = client.info("commandstats")
    assert done["cmdstat_unlink"]["calls"] > 0
    assert "cmdstat_del" not in done
