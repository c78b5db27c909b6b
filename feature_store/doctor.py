"""Looks a store over and says what is wrong and what to do.

In: a store. Out: findings, each with a level: ok, warning, error.
"""

import re
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from . import catalog, record
from .errors import FeatureStoreError, ServerError
from .layout import FIELDS
from .record import RECORD, SIZE
from .store import FeatureStore
from .wire import Reply

Level = Literal["ok", "warning", "error"]
_SAMPLE = 1000
_ID_BYTES = 8
_HEX = re.compile(rb"[0-9a-f]{4}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str


def examine(store: FeatureStore) -> list[Finding]:
    """All findings. Raises UnavailableError or AccessError when nothing can be asked."""
    store.admin("PING")
    findings: list[Finding] = []
    for look in (_servers, _pointer, _versions, _records, _tracking, _cluster):
        try:
            findings += look(store)
        except FeatureStoreError as error:
            findings.append(Finding("error", str(error)))
    return findings


def _servers(store: FeatureStore) -> list[Finding]:
    info = _info(store)
    return [_server(info), _round_trip(store), _eviction(info), _replicas(info)]


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


def _pointer(store: FeatureStore) -> list[Finding]:
    raw = store.admin("GET", store.keys.pointer)
    if raw is None:
        return []  # an empty store, or the versions below tell
    catalog.open_pointer(raw if isinstance(raw, bytes) else b"")
    return [Finding("ok", "version pointer is sound")]


def _versions(store: FeatureStore) -> list[Finding]:
    versions = store.versions()
    if not versions:
        return [Finding("ok", "no version yet: the store is empty")]
    found = []
    for version in versions:
        text = f"version {version.name}: {version.state}, {version.records} records"
        if version.state == "retiring":
            text += f"; if nobody goes on removing it: retire {version.name}, or doctor --repair"
        found.append(Finding("warning" if version.state == "retiring" else "ok", text))
    return found


def _records(store: FeatureStore) -> list[Finding]:
    """Decode a sample of records, and of buckets, as lookups would."""
    own = _scan(store, f"{store.namespace}:r????{{???}}*")
    shared = _scan(store, f"{store.namespace}:b??????{{???}}*")
    seen = bad = 0
    for name in own:
        seen += 1
        bad += not _sound(name[-8:], _number(name, -17), _held(store, "GET", name))
    largest = 0
    for name in shared:
        pairs = _held(store, "HGETALL", name)
        # What another program keeps there is one value that is no record.
        fields = pairs if isinstance(pairs, list) else [b"", b""]
        largest = max(largest, len(fields) // 2)
        for field, value in zip(fields[::2], fields[1::2], strict=True):
            seen += 1
            bad += not _sound(field, _number(name, -14), value)
    found = [Finding("ok", f"{seen} records looked at are sound")]
    if bad:
        found = [Finding("error", f"{bad} of {seen} records looked at are foreign or corrupt")]
    if largest > FIELDS:
        found.append(
            Finding(
                "warning",
                f"buckets hold up to {largest} records; over {FIELDS} each takes three times the "
                "memory: write the catalogue into a new version with expected_ads as it is now",
            )
        )
    return found


def _number(name: bytes, at: int) -> int:
    """The version in a key's name; 0, which is none, in another program's."""
    digits = name[at : at + 4]
    return int(digits, 16) if _HEX.fullmatch(digits) else 0


def _held(store: FeatureStore, *command: bytes | str) -> Reply:
    """What a key holds; nothing that is a record where it is of another type."""
    try:
        return store.admin(*command)
    except ServerError:
        return b""


def _scan(store: FeatureStore, pattern: str) -> list[bytes]:
    """About _SAMPLE keys of a pattern, as the server happens to give them."""
    cursor: Reply = b"0"
    found: list[bytes] = []
    while True:
        at = cursor if isinstance(cursor, bytes) else b"0"
        reply = store.admin("SCAN", at, "MATCH", pattern, "COUNT", _SAMPLE)
        if not isinstance(reply, list):
            return found
        names = reply[1] if isinstance(reply[1], list) else []
        found += [name for name in names if isinstance(name, bytes)]
        cursor = reply[0]
        if cursor == b"0" or len(found) >= _SAMPLE:
            return found


def _sound(ad: Reply, number: int, value: Reply) -> bool:
    if value is None:
        return True  # gone meanwhile
    if not isinstance(value, bytes) or len(value) != SIZE:
        return False
    if not isinstance(ad, bytes) or not 0 < len(ad) <= _ID_BYTES:
        return False
    ids = np.array([int.from_bytes(ad, "little", signed=len(ad) == _ID_BYTES)], np.int64)
    rows = np.frombuffer(value, RECORD)
    return bool(record.decode(record.hash_ids(ids), rows, None, number).valid[0])


def _tracking(store: FeatureStore) -> list[Finding]:
    try:
        reply = store.admin("CLIENT", "TRACKINGINFO")
    except FeatureStoreError as error:
        return [Finding("warning", f"near caches cannot work here: {error}")]
    return [Finding("ok" if reply else "warning", "the server can keep near caches true")]


def _cluster(store: FeatureStore) -> list[Finding]:
    """Whether the shards that are left go on when one is lost."""
    try:
        reply = store.admin("CONFIG", "GET", "cluster-require-full-coverage")
        enabled = store.admin("CONFIG", "GET", "cluster-enabled")
    except FeatureStoreError:
        return []  # the user may not ask; no fault
    settings = [reply[1] if isinstance(reply, list) and len(reply) == 2 else b""]
    settings += [enabled[1] if isinstance(enabled, list) and len(enabled) == 2 else b""]
    if settings == [b"yes", b"yes"]:
        return [
            Finding(
                "warning",
                "cluster-require-full-coverage is yes: when a shard is lost without a replica, "
                "all shards refuse to answer; set it to no",
            )
        ]
    return []
