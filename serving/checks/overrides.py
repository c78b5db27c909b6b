"""What people decide about ads: kept for good, above every other verdict, and read by onboarding.

In: a decision about one ad, or about one ad for one query. Out: values under keys of the checks'
own (docs/content_keys.md). A decision on risk holds for the ad whatever is sent under its id, and
for the same content wherever it comes from; one on relevance holds for query and content.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import orjson
from redis.exceptions import RedisError

from export.prompts import normalise_query
from feature_store.keys import Keys, tags
from feature_store.record import CATEGORIES, Flag
from serving.checks.subjects import Subject
from serving.checks.verdicts import PERSON, Relevance, Risk, Scope, encode
from serving.errors import UnavailableError

HUMAN = "human"
LISTED = 1_000


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing a person decided: `value` is the verdict it comes to."""

    ad_id: int
    value: Risk | Relevance
    query: str = ""  # of relevance alone
    reason: str = ""

    def example(self) -> Mapping[str, Any]:
        """As a line of onboarding's examples."""
        if isinstance(self.value, Relevance):
            labels: dict[str, Any] = {"query": self.query, "relevant": self.value.score >= 0.5}
        else:
            labels = {"labels": {name: p >= 0.5 for name, p in self.value.categories.items()}}
        return {"ad_id": self.ad_id, **labels, "reason": self.reason}


class Overrides:
    """Decisions in Redis; `client` is a redis.asyncio client. Methods raise UnavailableError.

    settle_s: for how long a replica may answer with what it had read before.
    """

    def __init__(self, client: Any, keys: Keys, settle_s: float = 0.0) -> None:
        self._client = client
        self._settle_s = settle_s
        self._keys = keys
        self._scope = Scope(keys.namespace, HUMAN, HUMAN)
        self._all = f"{keys.namespace}:decisions{{{tags()[0]}}}".encode()

    def names(self, task: str, subject: Subject, query: str) -> list[bytes]:
        """Keys under which a person's word on this may lie, the strongest first."""
        names = [self.by_content(task, subject.content, query)]
        if task == "risk" and subject.ad_id is not None:
            names.insert(0, self._keys.content(subject.ad_id, PERSON))
        return names

    def by_content(self, task: str, content: bytes, query: str) -> bytes:
        """Key of what a person said of a content, whichever ad has it."""
        return self._scope.key(task, content, query)

    async def put(self, decision: Decision, subject: Subject) -> None:
        """Keep a decision on an ad as it is now, in place of an earlier one."""
        value = encode(decision.value)
        query = normalise_query(decision.query)
        line = dict(decision.example()) | {"content": subject.content.hex()}
        try:
            # The list first: whatever holds is in it, and can be found and withdrawn.
            await self._client.hset(self._all, _field(decision.ad_id, query), orjson.dumps(line))
            for name in self.names(_task(query), subject, query):
                await self._client.set(name, value)
        except RedisError as error:
            raise UnavailableError(f"the feature store failed: {error}") from error

    async def withdraw(self, ad_id: int, query: str = "") -> bool:
        """Forget a decision; False when there was none."""
        query = normalise_query(query)
        field = _field(ad_id, query)
        try:
            line = await self._client.hget(self._all, field)
            if line is None:
                return False
            content = bytes.fromhex(orjson.loads(line)["content"])
            for name in self.names(_task(query), Subject(content, "", "", ad_id), query):
                await self._client.delete(name)
            await self._client.hdel(self._all, field)
        except RedisError as error:
            raise UnavailableError(f"the feature store failed: {error}") from error
        return True

    async def settle(self) -> None:
        """Wait until what was written before this call holds in every replica."""
        await asyncio.sleep(self._settle_s)

    async def examples(self) -> AsyncIterator[dict[str, Any]]:
        """Every decision as a line of onboarding's examples."""
        try:
            async for _, line in self._client.hscan_iter(self._all, count=LISTED):
                yield {k: v for k, v in orjson.loads(line).items() if k != "content"}
        except RedisError as error:
            raise UnavailableError(f"the feature store failed: {error}") from error


def human_flags(risk: Risk) -> Flag:
    """The bits of what a person said of an ad's risk."""
    bits = (CATEGORIES[name] for name, p in risk.categories.items() if p >= 0.5)
    flags = reduce(or_, bits, Flag.HUMAN)
    return flags | Flag.REVIEW if risk.verdict == "review" else flags


def _task(query: str) -> str:
    return "relevance" if query else "risk"


def _field(ad_id: int, query: str) -> bytes:
    return ad_id.to_bytes(8, "little") + query.encode()
