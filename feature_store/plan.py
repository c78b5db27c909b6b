"""How much hardware a catalogue and its traffic need, from measured constants.

In: ads, lookups per second, ids per lookup, a layout. Out: memory, shards, network, server CPU, and
the constants that they follow from. Those are of Valkey 9.1 and this package's records at a million
ads with random 53-bit ids, as `python -m benchmarks memory` found them on two virtual cores; it
measures them anew elsewhere. An idle machine, whose server is woken for each lookup, gave 14 and 31
us a lookup, a busy one next to none: the higher is planned with. Redis 7.0 takes 121 bytes a record
where Valkey takes 90, 42 where it takes 38, and 0.69 us an id where it takes 0.26, since it fetches
nothing ahead (docs/decisions/0115-sixteen-keys-at-a-time.md). A plan is a start, not a promise.
"""

import math
from dataclasses import dataclass

from .errors import InputError
from .layout import Name

SHARE = 0.6  # of a server's thread and memory that is planned for
TAGS = 64  # more shards than hash tags would stay empty
SHARD_GB = 24.0  # memory of one shard: restarts and failovers stay quick


@dataclass(frozen=True, slots=True)
class Costs:
    """What a layout costs the server and the network."""

    record_bytes: float  # memory per ad and version, key and hash table included
    lookup_us: float  # server CPU per lookup and shard that it reaches
    id_us: float  # server CPU per id
    request_bytes: int  # per id, to the server, for a namespace of three letters
    reply_bytes: int  # per id, from the server


COSTS: dict[Name, Costs] = {
    "default": Costs(90.0, 14.0, 0.26, 30, 31),
    "compact": Costs(38.0, 31.0, 1.08, 53, 31),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a deployment needs. Memory and shards of one copy of the catalogue, without replicas;
    `copies` clusters share the lookups, since each reaches all shards and so adds to their work."""

    layout: Name
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
    costs: Costs


def plan(ads: float, qps: float, ids: float, versions: int = 2, layout: Name = "default") -> Plan:
    """Size a deployment that keeps `versions` versions of `ads` ads. Raises InputError."""
    for name, value in (("ads", ads), ("qps", qps), ("ids", ids), ("versions", versions)):
        if not 0 < value < 1e15:
            raise InputError(f"{name} must be more than 0; found {value!r}")
    costs = COSTS[layout]
    memory = ads * versions * costs.record_bytes
    for_memory = max(math.ceil(memory / SHARE / (SHARD_GB * 1e9)), 1)
    if for_memory > TAGS:
        raise InputError(
            f"{memory / 1e9:.0f} GB need {for_memory} shards; a namespace has {TAGS} at most: "
            "split the catalogue over namespaces"
        )
    # If any number of shards suffices, the most do: the work grows with them by less than they add.
    copies = max(math.ceil(_cores(costs, qps, ids, TAGS) / (TAGS * SHARE)), 1)
    for_cpu = min(_shards_for(costs, qps / copies, ids), TAGS)
    shards = max(for_memory, for_cpu)
    return Plan(
        layout=layout,
        ads=ads,
        qps=qps,
        ids=ids,
        versions=versions,
        memory_gb=memory / 1e9,
        copies=copies,
        shards=shards,
        shards_for_memory=for_memory,
        shards_for_cpu=for_cpu,
        server_cores=_cores(costs, qps, ids, shards),
        request_mb_s=qps * ids * costs.request_bytes / 1e6,
        reply_mb_s=qps * ids * costs.reply_bytes / 1e6,
        costs=costs,
    )


def _shards_for(costs: Costs, qps: float, ids: float) -> int:
    """Shards whose threads suffice; TAGS + 1 if no number does."""
    for shards in range(1, TAGS + 1):
        if _cores(costs, qps, ids, shards) <= shards * SHARE:
            return shards
    return TAGS + 1


def _cores(costs: Costs, qps: float, ids: float, shards: int) -> float:
    return qps * (ids * costs.id_us + min(shards, ids) * costs.lookup_us) / 1e6
