"""Looks a store over and says what is wrong and what to do.

In: a store. Out: findings, each with a level: ok, warning, error. In a cluster every node is looked
at, and its findings begin with its address.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import catalog, record
from .core import TIMEOUT_S
from .errors import FeatureStoreError, ServerError, UnavailableError
from .layout import FIELDS
from .ops import Node, ask, checked
from .record import RECORD, SIZE
from .store import FeatureStore
from .wire import Reply, command

Level = Literal["ok", "warning", "error"]
_SAMPLE = 1000
_ID_BYTES = 8
_HEX = re.compile(rb"[0-9a-f]{4}")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str


@dataclass(frozen=True, slots=True)
class _Place:
    """One server of a store."""

    store: FeatureStore
    node: Node
    told: str  # what its findings begin with

    def ask(self, *parts: bytes | str | int) -> Reply:
        """A command's reply. Raises what stopped it."""
        payload = command(*parts)
        asking = ask(self.node, payload, 1, time.monotonic() + TIMEOUT_S)
        return checked(self.store._run(asking), self.node)[0]


def examine(store: FeatureStore) -> list[Finding]:
    """All findings. Raises UnavailableError or AccessError when nothing can be asked."""
    where = store._core.map
    places = [_Place(store, node, f"{node}: " if where.clustered else "") for node in where.nodes]
    _reach(places)
    findings = [*_each(places, _servers), *_unowned(where.owner)]
    for whole in (_pointer, _versions):
        findings += _found(whole, store)
    for part in (_records, _tracking, _cluster):
        findings += _each(places, part)
    return findings


def _reach(places: list[_Place]) -> None:
    """Raises what stopped the last server where none answers."""
    for place in places:
        try:
            place.ask("PING")
            return
        except UnavailableError:
            if place is places[-1]:
                raise


def _found(look: Callable[[T], list[Finding]], at: T) -> list[Finding]:
    """What a look finds; what stops it is a finding too."""
    try:
        return look(at)
    except FeatureStoreError as error:
        return [Finding("error", str(error))]


def _each(places: list[_Place], look: Callable[[_Place], list[Finding]]) -> list[Finding]:
    """Look at every server."""
    return [
        Finding(finding.level, place.told + finding.what)
        for place in places
        for finding in _found(look, place)
    ]


def _unowned(owner: NDArray[np.intp]) -> list[Finding]:
    lost = int((owner < 0).sum())
    if not lost:
        return []
    text = f"{lost} of {len(owner)} hash tags lie in slots that no server owns: see CLUSTER SLOTS"
    return [Finding("error", text)]


def _servers(place: _Place) -> list[Finding]:
    info = _info(place)
    return [_server(info), _round_trip(place), _eviction(info), _replicas(info)]


def _info(place: _Place) -> dict[str, str]:
    reply = place.ask("INFO")
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""
    return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)


def _server(info: dict[str, str]) -> Finding:
    name = info.get("server_name", "redis")
    version = info.get("valkey_version", info.get("redis_version", "?"))
    mode = info.get("server_mode", info.get("redis_mode", "?"))
    return Finding("ok", f"server {name} {version}, {mode}")


def _round_trip(place: _Place) -> Finding:
    times = []
    for _ in range(20):
        start = time.perf_counter()
        place.ask("PING")
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
    if info.get("role") == "slave":
        primary = f"{info.get('master_host')}:{info.get('master_port')}"
        text = f"a replica of {primary}: it can be read, but only that server can be written to"
        return Finding("warning", text)
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


def _sampled(place: _Place) -> tuple[int, int, int]:
    """Decode a sample of a server's records and buckets, as lookups would.

    How many were looked at, how many are bad, and how many the largest bucket holds.
    """
    seen = bad = largest = 0
    namespace = place.store.namespace
    for name in _scan(place, f"{namespace}:r????{{???}}*"):
        seen += 1
        bad += not _sound(name[-8:], _number(name, -17), _held(place, "GET", name))
    for name in _scan(place, f"{namespace}:b??????{{???}}*"):
        pairs = _held(place, "HGETALL", name)
        # What another program keeps there is one value that is no record.
        fields = pairs if isinstance(pairs, list) else [b"", b""]
        largest = max(largest, len(fields) // 2)
        for field, value in zip(fields[::2], fields[1::2], strict=True):
            seen += 1
            bad += not _sound(field, _number(name, -14), value)
    return seen, bad, largest


def _records(place: _Place) -> list[Finding]:
    seen, bad, largest = _sampled(place)
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


def _held(place: _Place, *parts: bytes | str) -> Reply:
    """What a key holds; nothing that is a record where it is of another type."""
    try:
        return place.ask(*parts)
    except ServerError:
        return b""


def _scan(place: _Place, pattern: str) -> list[bytes]:
    """About _SAMPLE keys of a pattern, as the server happens to give them."""
    cursor: Reply = b"0"
    found: list[bytes] = []
    while True:
        at = cursor if isinstance(cursor, bytes) else b"0"
        reply = place.ask("SCAN", at, "MATCH", pattern, "COUNT", _SAMPLE)
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


def _tracking(place: _Place) -> list[Finding]:
    try:
        reply = place.ask("CLIENT", "TRACKINGINFO")
    except FeatureStoreError as error:
        return [Finding("warning", f"near caches cannot work here: {error}")]
    return [Finding("ok" if reply else "warning", "the server can keep near caches true")]


def _cluster(place: _Place) -> list[Finding]:
    """Whether the shards that are left go on when one is lost."""
    try:
        reply = place.ask("CONFIG", "GET", "cluster-require-full-coverage")
        enabled = place.ask("CONFIG", "GET", "cluster-enabled")
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
