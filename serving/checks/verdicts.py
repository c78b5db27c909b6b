"""Verdicts as stored data: the model is asked once per content, policy version and model version.

In: a content hash, the versions and, for relevance, the query. Out: JSON values in Redis under keys
of the checks' own (docs/content_keys.md); any client of the store reads them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Generic, Literal, TypeVar

import orjson
from redis.exceptions import RedisError

from export.prompts import normalise_query
from feature_store.keys import Keys
from serving.checks.policy import Verdict
from serving.checks.remembered import Remembered

KEPT_S = 90 * 24 * 3600  # a verdict nobody asked to be made again in a season is asked anew
KEY_BYTES = 20
PERSON = "o"  # kind of the keys of people's words on ads


# Who made a verdict: the model, the router before it, a near copy's verdict, or a person.
Maker = Literal["llm", "router", "duplicate", "human"]


@dataclass(frozen=True, slots=True)
class Relevance:
    """Whether an ad answers a query. score: calibrated probability. cut: fields cut short."""

    score: float
    label: str
    label_mass: float
    cut: tuple[str, ...] = ()
    by: Maker = "llm"


@dataclass(frozen=True, slots=True)
class Risk:
    """An ad's verdict and probability by category. label_mass: the lowest of its reads."""

    verdict: Verdict
    categories: Mapping[str, float]
    label_mass: float
    cut: tuple[str, ...] = ()
    by: Maker = "llm"


@dataclass(frozen=True, slots=True)
class Caption:
    """What an ad's image shows, in words."""

    caption: str
    by: Maker = "llm"


_Kind = TypeVar("_Kind", bound=Relevance | Risk | Caption)


@lru_cache(1024)  # each check names its query twice: for the verdict, and for a person's word
def _spelled(query: str) -> bytes:
    return normalise_query(query).encode()


@dataclass(frozen=True, slots=True)
class Scope:
    """What all keys of one opened model share."""

    namespace: str
    policy_version: str
    model_version: str

    def key(self, task: str, content: bytes, query: str = "") -> bytes:
        """Name of a verdict: task, versions, then a digest of content hash and query."""
        digest = hashlib.blake2b(content, digest_size=KEY_BYTES)
        if query:
            digest.update(_spelled(query))
        prefix = f"{self.namespace}:j:{task}:{self.policy_version}:{self.model_version}:"
        return prefix.encode() + digest.digest()


def prefixes(keys: Keys) -> tuple[bytes, bytes]:
    """What the keys of verdicts begin with, and those of people's words on ads."""
    return f"{keys.namespace}:j:".encode(), f"{keys.namespace}:{PERSON}{{".encode()


def encode(value: Relevance | Risk | Caption) -> bytes:
    """A verdict as it is stored."""
    return orjson.dumps(asdict(value))


class VerdictStore(Generic[_Kind]):
    """Verdicts of one kind; `client` is a redis.asyncio client (plain or cluster).

    remembered: what was read before, where the server says what changes.
    """

    def __init__(
        self, client: Any, kind: type[_Kind], remembered: Remembered | None = None
    ) -> None:
        self._client = client
        self._kind = kind
        self._remembered = remembered

    async def get(
        self,
        keys: Sequence[bytes],
        above: Sequence[Sequence[bytes]] = (),
        *,
        remembered: bool = True,
    ) -> list[_Kind | None]:
        """What is stored under each key; None also while the store is away.

        above: for each key the names of what goes before it, the strongest first.
        remembered: what was read of late will do.
        """
        names = [*(name for row in above for name in row), *keys]
        memory = self._remembered if remembered else None
        values = None if memory is None else memory.get(names)
        if values is None:
            try:
                values = await self._read(names, len(keys), memory)
            except RedisError:
                return [None] * len(keys)
        found = values[len(names) - len(keys) :]
        first = iter(values)
        for row, strong in enumerate(above):
            said = [value for value in islice(first, len(strong)) if value is not None]
            found[row] = said[0] if said else found[row]
        return found

    async def _read(
        self, names: Sequence[bytes], keys: int, memory: Remembered | None
    ) -> list[_Kind | None]:
        """What lies under names, of which the last `keys` are verdicts'. Raises RedisError."""
        reading = None if memory is None else memory.begin()
        values: list[_Kind | None] = []
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.get(name)
                values = [None if v is None else self._parse(v) for v in await pipe.execute()]
        finally:
            if memory is not None and reading is not None:
                # That a verdict is not there is about to change.
                above = len(names) - keys
                read = zip(names, values, strict=False)  # none where it failed
                kept = (one for at, one in enumerate(read) if at < above or one[1] is not None)
                memory.end(reading, kept)
        return values

    async def put(self, key: bytes, value: _Kind) -> _Kind:
        """Store a verdict unless there is one; the one that now holds. Raises RedisError."""
        data = encode(value)
        earlier = await self._client.set(key, data, ex=KEPT_S, nx=True, get=True)
        kept = None if earlier is None else self._parse(earlier)
        return value if kept is None else kept

    def _parse(self, value: bytes) -> _Kind | None:
        """None for a value of another form: it is asked for again."""
        try:
            fields = orjson.loads(value)
            if "cut" in fields:
                fields["cut"] = tuple(fields["cut"])
            return self._kind(**fields)
        except (orjson.JSONDecodeError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of one replica."""

    relevance: VerdictStore[Relevance]
    risk: VerdictStore[Risk]
    captions: VerdictStore[Caption]

    @classmethod
    def of(cls, client: Any, remembered: Remembered | None = None) -> "Stores":
        """Over one client. See `VerdictStore`."""
        return cls(
            VerdictStore(client, Relevance, remembered),
            VerdictStore(client, Risk, remembered),
            VerdictStore(client, Caption),
        )
