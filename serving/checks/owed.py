"""Verdicts that are owed: ads that were taken in and not judged yet, as a sorted set in Redis.

In: ad ids from ingest. Out: ids to judge, leased to one worker for a while. An id leaves the set
only if nobody owed it anew since it was taken, so an ad whose content changes while it is judged
is judged again: at least once, and what is done twice comes to the same.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feature_store.keys import Keys, tags

# A record is written right after its ad is owed; a worker that looks before would find none.
DELAY_S = 0.3
LEASE_S = 60.0
_MEMBER_BYTES = 8

_TAKE = """
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], ARGV[2], id) end
return ids
"""
_DONE = """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
return 0
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """Ids to judge, and the mark by which they are known to be those that were taken."""

    ad_ids: tuple[int, ...]
    mark: str


class Owed:
    """The set; scores are the milliseconds (Unix time) from which on an id may be taken."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._key = f"{keys.namespace}:owed{{{tags()[0]}}}".encode()

    async def add(self, ad_ids: Sequence[int], delay_s: float = DELAY_S) -> None:
        """Owe verdicts. Raises redis.RedisError."""
        due = _now_ms() + int(delay_s * 1000)
        await self._client.zadd(self._key, {_member(ad_id): due for ad_id in ad_ids})

    async def take(self, count: int) -> Lease:
        """At most `count` ids that are due, leased to the caller. Raises redis.RedisError."""
        now = _now_ms()
        mark = now + int(LEASE_S * 1000)
        found = await self._client.eval(_TAKE, 1, self._key, now, mark, count)
        ids = tuple(int.from_bytes(member, "little") for member in found)
        return Lease(ids, str(mark))

    async def holds(self, ad_id: int, lease: Lease) -> bool:
        """Whether it is still owed as it was leased. Raises redis.RedisError."""
        score = await self._client.zscore(self._key, _member(ad_id))
        return score is not None and int(score) == int(lease.mark)

    async def done(self, ad_id: int, lease: Lease) -> bool:
        """Settle one id; False when it was owed anew meanwhile. Raises redis.RedisError."""
        gone = await self._client.eval(_DONE, 1, self._key, _member(ad_id), lease.mark)
        return bool(gone)

    async def remove(self, ad_id: int) -> None:
        """Forget an ad that has ended. Raises redis.RedisError."""
        await self._client.zrem(self._key, _member(ad_id))

    async def count(self) -> int:
        """How many verdicts are owed. Raises redis.RedisError."""
        return int(await self._client.zcard(self._key))


def _member(ad_id: int) -> bytes:
    return ad_id.to_bytes(_MEMBER_BYTES, "little")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
