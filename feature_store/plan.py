"""How much hardware a catalogue and its traffic need, from measured constants.

In: ads, lookups per second, ids per lookup. Out: memory, shards, network, server CPU. The
constants were measured with Valkey 9.1 and this package's records at a million ads (libc malloc);
docs/decisions/0010-record-and-keys.md says how. A plan is a start, not a promise: measure there.
"""

import math
from dataclasses import dataclass

from .errors import InputError

RECORD_BYTES = 90.0  # server memory per ad and version, key and hash table included
LOOKUP_US = 9.0  # server CPU per lookup and shard that it reaches
ID_US = 0.56  # server CPU per id
REQUEST_BYTES = 29  # per id, to the server, for a namespace of three letters
REPLY_BYTES = 31  # per id, from the server
SHARE = 0.6  # of a server's thread and memory that is planned for
TAGS = 64  # more shards than hash tags would stay empty
SHARD_GB = 24.0  # memory of one shard: restarts and failovers stay quick


@dataclass(frozen=True, slots=True)
class Plan:
    """What a deployment needs. Memory and shards of one copy of the catalogue, without replicas;
    `copies` clusters share the lookups, since each reaches all shards and so adds to their work."""

    ads: float
    qps: float
    ids: float
    versions: int
    memory_gb: float
    copies: int
    shards: int
    shards_for_memory: int
    shards_for_cpu: int
    server_cores: float
    request_mb_s: float
    reply_mb_s: float


def plan(ads: float, qps: float, ids: float, versions: int = 2) -> Plan:
    """Size a deployment that keeps `versions` versions of `ads` ads. Raises InputError."""
    for name, value in (("ads", ads), ("qps", qps), ("ids", ids), ("versions", versions)):
        if not 0 < value < 1e15:
            raise InputError(f"{name} must be more than 0; found {value!r}")
    memory = ads * versions * RECORD_BYTES
    for_memory = max(math.ceil(memory / SHARE / (SHARD_GB * 1e9)), 1)
    if for_memory > TAGS:
        raise InputError(
            f"{memory / 1e9:.0f} GB need {for_memory} shards; a namespace has {TAGS} at most: "
            "split the catalogue over namespaces"
        )
    # If any number of shards suffices, the most do: the work grows with them by less than they add.
    copies = max(math.ceil(_cores(qps, ids, TAGS) / (TAGS * SHARE)), 1)
    for_cpu = min(_shards_for(qps / copies, ids), TAGS)
    shards = max(for_memory, for_cpu)
    return Plan(
        ads=ads,
        qps=qps,
        ids=ids,
        versions=versions,
        memory_gb=memory / 1e9,
        copies=copies,
        shards=shards,
        shards_for_memory=for_memory,
        shards_for_cpu=for_cpu,
        server_cores=_cores(qps, ids, shards),
        request_mb_s=qps * ids * REQUEST_BYTES / 1e6,
        reply_mb_s=qps * ids * REPLY_BYTES / 1e6,
    )


def _shards_for(qps: float, ids: float) -> int:
    """Shards whose threads suffice; TAGS + 1 if no number does."""
    for shards in range(1, TAGS + 1):
        if _cores(qps, ids, shards) <= shards * SHARE:
            return shards
    return TAGS + 1


def _cores(qps: float, ids: float, shards: int) -> float:
    return qps * (ids * ID_US + min(shards, ids) * LOOKUP_US) / 1e6
