"""Looks a store over and says what is wrong and what to do.

In: a store. Out: findings, each with a level: ok, warning, error.
"""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from . import catalog, record
from .errors import FeatureStoreError
from .keys import Keys
from .record import RECORD, SIZE
from .store import FeatureStore

Level = Literal["ok", "warning", "error"]
_SAMPLE = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str


def examine(store: FeatureStore) -> list[Finding]:
    """All findings. Raises UnavailableError or AccessError when nothing can be asked."""
    info = _info(store)
    findings = [_server(info), _round_trip(store), _eviction(info), _replicas(info)]
    findings += [_pointer(store), *_versions(store), _records(store), _tracking(store)]
    return findings


def _info(store: FeatureStore) -> dict[str, str]:
    reply = store.admin("INFO")
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""
    return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)


def _server(info: dict[str, str]) -> Finding:
    name = info.get("server_name", "redis")
    version = info.get("valkey_version", info.get("redis_version", "?"))
    mode = info.get("server_mode", info.get("redis_mode", "?"))
    return Finding("ok", f"server {name} {version}, {mode}")


def _round_trip(store: FeatureStore) -> Finding:
    times = []
    for _ in range(20):
        start = time.perf_counter()
        store.admin("PING")
        times.append(time.perf_counter() - start)
    return Finding("ok", f"round trip {sorted(times)[10] * 1e6:.0f} us (median of 20)")


def _eviction(info: dict[str, str]) -> Finding:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return Finding(
            "warning",
            f"maxmemory-policy is {policy}: records may vanish silently; set it to noeviction",
        )
    return Finding("ok", f"memory {int(info.get('used_memory', '0')) / 1e6:.1f} MB, no eviction")


def _replicas(info: dict[str, str]) -> Finding:
    count = int(info.get("connected_slaves", "0"))
    if not count:
        return Finding("warning", "no replica: a takedown is lost if this server's data is")
    return Finding("ok", f"{count} replicas")


def _pointer(store: FeatureStore) -> Finding:
    raw = store.admin("GET", store.keys.pointer)
    if raw is None:
        return Finding("ok", "no version yet: the store is empty")
    try:
        catalog.open_pointer(raw if isinstance(raw, bytes) else b"")
    except FeatureStoreError as error:
        return Finding("error", str(error))
    return Finding("ok", "version pointer is sound")


def _versions(store: FeatureStore) -> list[Finding]:
    try:
        versions = store.versions()
    except FeatureStoreError as error:
        return [Finding("error", f"versions cannot be read: {error}")]
    found = []
    for version in versions:
        level: Level = "warning" if version.state == "retiring" else "ok"
        advice = "; `retire` it again to finish" if level == "warning" else ""
        found.append(
            Finding(level, f"version {version.name}: {version.state}, {version.records}{advice}")
        )
    return found


def _records(store: FeatureStore) -> Finding:
    """Decode a sample of records as lookups would."""
    cursor: object = b"0"
    seen = bad = 0
    pattern = f"{store.namespace}:r????{{???}}*"
    while True:
        reply = store.admin(
            "SCAN",
            cursor if isinstance(cursor, bytes) else b"0",
            "MATCH",
            pattern,
            "COUNT",
            _SAMPLE,
        )
        if not isinstance(reply, list):
            break
        names = reply[1] if isinstance(reply[1], list) else []
        for name in names:
            if isinstance(name, bytes):
                seen += 1
                bad += not _sound(store.keys, name, store.admin("GET", name))
        cursor = reply[0]
        if cursor == b"0" or seen >= _SAMPLE:
            break
    if bad:
        return Finding("error", f"{bad} of {seen} records looked at are foreign or corrupt")
    return Finding("ok", f"{seen} records looked at are sound")


def _sound(keys: Keys, name: bytes, value: object) -> bool:
    if value is None:
        return True  # gone meanwhile
    if not isinstance(value, bytes) or len(value) != SIZE or len(name) < 12:
        return False
    ids = np.frombuffer(name[-8:], "<i8").astype(np.int64)
    number = int(name[len(keys.namespace) + 2 : len(keys.namespace) + 6], 16)
    rows = np.frombuffer(value, RECORD)
    return bool(record.decode(record.hash_ids(ids), rows, None, number).valid[0])


def _tracking(store: FeatureStore) -> Finding:
    try:
        reply = store.admin("CLIENT", "TRACKINGINFO")
    except FeatureStoreError as error:
        return Finding("warning", f"near caches cannot work here: {error}")
    return Finding("ok" if reply else "warning", "the server can keep near caches true")
