"""How the core talks with whatever moves its bytes: sockets that block, or asyncio.

An operation is a generator. It yields an `Exchange` (bytes for some nodes, and readers for their
answers) and is sent one outcome per call: None when the reader is complete, or the error that
stopped it. It yields a `Pause` to wait. What it returns is the operation's answer. So sync and
async share all logic, and differ only in two small drivers.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from .errors import AccessError, FeatureStoreError, ServerError, UnavailableError
from .wire import Reader, RepliesReader, Reply, ServerReplyError

T = TypeVar("T")


class Node(NamedTuple):
    """Where a server listens: host and port, or a socket's path and port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


@dataclass(slots=True)
class Call:
    """One pipeline to one node, and who reads what comes back."""

    node: Node
    payload: bytes
    reader: Reader


@dataclass(slots=True)
class Exchange:
    """Calls that run side by side until `deadline` (time.monotonic seconds)."""

    calls: list[Call]
    deadline: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this long before the next step."""

    seconds: float


Outcome = FeatureStoreError | None
Answer = Reply | FeatureStoreError  # of one command: a reply, an error line, what stopped it
Op = Generator[Exchange | Pause, list[Outcome], T]


def ask(node: Node, payload: bytes, count: int, deadline: float) -> Op[list[Reply]]:
    """Send `count` commands to one node; raises what stopped them."""
    reader = RepliesReader(count)
    (outcome,) = yield Exchange([Call(node, payload, reader)], deadline)
    if outcome is not None:
        raise outcome
    return reader.replies


def error_of(line: str, node: Node | str) -> FeatureStoreError:
    """The typed error for an error line of the server."""
    line = line.rstrip(".")
    word = line.split(" ", 1)[0]
    if word in ("NOAUTH", "WRONGPASS", "NOPERM") or "AUTH" in line[:40]:
        return AccessError(
            f"{node} refused: {line}. Check user and password in the URL, and the user's ACL "
            "(docs/wire_format.md lists the commands and keys that are needed)."
        )
    if word in _LATER:
        remedy = _LATER[word] or "Try again shortly."
        return UnavailableError(f"{node} cannot answer now: {line}. {remedy}")
    remedy = next((text for words, text in _REMEDIES.items() if words in line), _ANY_REMEDY)
    return ServerError(f"{node} answered with an error: {line}. {remedy}")


_LATER = {
    "READONLY": "It is a replica: name its primary, or redis+sentinel://, in the URL; after a "
    "failover, try again shortly.",
    "TRYAGAIN": "A slot is being moved key by key, and is written again when it has moved.",
    "LOADING": "It has been started and reads its data: try again when it has.",
    **dict.fromkeys(("CLUSTERDOWN", "MASTERDOWN", "BUSY", "MOVED", "ASK"), ""),
}
_REMEDIES = {
    "cluster support disabled": "It is a single server: write redis:// for redis+cluster://.",
    "CROSSSLOT": "It is a member of a cluster: write redis+cluster:// for redis://.",
    "unknown command 'SENTINEL'": "It is no sentinel: name sentinels' ports (26379) in the URL.",
    "unknown command": "The store needs Redis 6.2, Valkey 7.2 or later.",
    "DB index": "Name a database in the URL that it has, or none.",
    "OOM": "Its memory is full: retire old versions, or raise maxmemory.",
    "WRONGTYPE": "Another program uses this namespace's keys: use a namespace of your own.",
    "MISCONF": "It cannot save its data: see its log and disk.",
}
_ANY_REMEDY = "`python -m feature_store doctor` looks the server over."


def checked(answers: Sequence[Answer], node: Node) -> list[Reply]:
    """The replies, if none is an error."""
    replies: list[Reply] = []
    for answer in answers:
        if isinstance(answer, FeatureStoreError):
            raise answer
        if isinstance(answer, ServerReplyError):
            raise error_of(answer, node)
        replies.append(answer)
    return replies
