"""Verdicts that are owed: a Redis stream that a consumer group works off, at least once.

In: ad ids from ingest, and what a check could not answer. Out: debts to one worker each; a worker
that dies leaves its debts to the others after LEASE_S. An ad is in the stream once: owed anew, its
earlier entry goes, so that an ad whose content changes while it is judged is judged again, and what
is done twice comes to the same. Nothing is ever trimmed away: when the stream is full, whoever
would add hears it. What fails again and again becomes a dead letter, which somebody can look at.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feature_store.keys import Keys, tags
from serving.checks import owed_scripts as scripts
from serving.errors import OverloadedError

LEASE_S = 60.0
MOST = 1_000_000  # ads, dead ones included; about 250 bytes each in Redis
IDLE_S = 600.0  # after which a consumer that holds nothing is forgotten
RETRY_AFTER_S = 30.0
_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class Debt:
    """One verdict to make: of risk, or with a `query` (normalised) of relevance.

    entry: of the stream; another one once the ad is owed anew. since_ms: Unix time. tries: how
    often it failed. deliveries: how often it was handed to a worker as it is.
    """

    ad_id: int
    query: str
    entry: bytes
    since_ms: int
    tries: int = 0
    deliveries: int = 1

    @property
    def member(self) -> bytes:
        return _member(self.ad_id, self.query)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A verdict that nobody will make unless it is asked for again."""

    ad_id: int
    query: str
    since_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lag:
    """owed: verdicts, those that are being made (`taken`) among them. oldest_s: of the first."""

    owed: int
    taken: int
    dead: int
    oldest_s: float


class Owed:
    """The stream as one worker sees it; `client`: redis.asyncio. Methods raise RedisError."""

    def __init__(self, client: Any, keys: Keys, most: int = MOST, lease_s: float = LEASE_S) -> None:
        self._client = client
        self._most = most
        self._lease_ms = int(lease_s * 1000)
        self._consumer = uuid.uuid4().hex
        tail = f"{{{tags()[0]}}}"
        self._dead = f"{keys.namespace}:owed-dead{tail}".encode()
        self._keys = (
            f"{keys.namespace}:owed-stream{tail}".encode(),
            f"{keys.namespace}:owed-index{tail}".encode(),
            self._dead,
        )

    async def add(self, ad_ids: Sequence[int]) -> None:
        """Owe verdicts of risk. Raises OverloadedError when the stream is full."""
        await self._add([_member(ad_id) for ad_id in ad_ids])

    async def add_query(self, ad_ids: Sequence[int], query: str) -> None:
        """Owe verdicts of relevance to a normalised query. Raises OverloadedError."""
        await self._add([_member(ad_id, query) for ad_id in ad_ids])

    async def take(self, count: int) -> list[Debt]:
        """At most `count` debts, first those whose worker is gone."""
        found = await self._run(scripts.TAKE, self._consumer, self._lease_ms, count)
        return [
            Debt(*_parts(member), entry, int(since), int(tries), int(deliveries))
            for entry, member, since, tries, deliveries in found
        ]

    async def holds(self, debt: Debt) -> bool:
        """Whether it is still owed as it was taken."""
        entry: bytes | None = await self._client.hget(self._keys[1], debt.member)
        return entry == debt.entry

    async def settle(self, debt: Debt) -> bool:
        """It is paid; False when it was owed anew meanwhile."""
        return bool(await self._run(scripts.SETTLE, debt.member, debt.entry))

    async def retry(self, debt: Debt, tries: int) -> None:
        """Put it behind the others, with `tries` failures so far."""
        await self._run(scripts.RETRY, debt.member, debt.entry, debt.since_ms, tries)

    async def bury(self, debt: Debt, reason: str) -> None:
        """Make it a dead letter, until the ad changes or `revive`."""
        await self._run(scripts.BURY, debt.member, debt.entry, debt.since_ms, reason)

    async def remove(self, ad_id: int) -> None:
        """Forget an ad that has ended."""
        await self._run(scripts.FORGET, _member(ad_id))

    async def count(self) -> int:
        """How many verdicts are owed, dead letters not among them."""
        return int(await self._client.xlen(self._keys[0]))

    async def lag(self) -> Lag:
        """How far behind the workers are."""
        owed, taken, dead, age_ms = map(int, await self._run(scripts.STATE))
        return Lag(owed, taken, dead, age_ms / 1000)

    async def dead(self, count: int) -> list[DeadLetter]:
        """The oldest dead letters."""
        found = await self._client.xrange(self._dead, count=count)
        return [
            DeadLetter(
                *_parts(fields[b"member"]), int(fields[b"since"]), fields[b"reason"].decode()
            )
            for _, fields in found
        ]

    async def revive(self, count: int) -> int:
        """Owe the oldest dead letters again; how many they were."""
        return int(await self._run(scripts.REVIVE, count))

    async def prune(self) -> int:
        """Forget workers that are gone and hold nothing; how many they were."""
        return int(await self._run(scripts.PRUNE, int(IDLE_S * 1000)))

    async def _add(self, members: Sequence[bytes]) -> None:
        if members and not await self._run(scripts.ADD, self._most, *members):
            raise OverloadedError(
                f"{self._most:,} verdicts are owed, which is all that may be; is the language "
                "model away? (GET /v1/checks/owed)",
                retry_after_s=RETRY_AFTER_S,
            )

    async def _run(self, script: str, *arguments: Any) -> Any:
        return await self._client.eval(script, len(self._keys), *self._keys, *arguments)


def _member(ad_id: int, query: str = "") -> bytes:
    return ad_id.to_bytes(_ID_BYTES, "little") + query.encode()


def _parts(member: bytes) -> tuple[int, str]:
    return int.from_bytes(member[:_ID_BYTES], "little"), member[_ID_BYTES:].decode()
