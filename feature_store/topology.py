"""Which node owns which hash tag, and how that is found out.

In: an address. Out: a `Topology`. A single server owns all tags; a cluster is asked for its
slots; sentinels are asked for their master.
"""

import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from redis.crc import key_slot

from .address import Address
from .errors import FeatureStoreError, ServerError, UnavailableError
from .keys import TAGS, tags
from .ops import Node, Op, ask, checked
from .wire import Reply, command

SLOTS = NDArray[np.intp]
_TAG_SLOTS = [key_slot(tag.encode()) for tag in tags()]


_ASK_S = 0.25  # for one server's answer, while others are left to ask


@dataclass(frozen=True, slots=True)
class Topology:
    """Masters, and for each tag the index of its owner (-1: none that answers)."""

    nodes: tuple[Node, ...]
    owner: SLOTS  # (TAGS,)
    clustered: bool = False
    partial: bool = False  # whether silent nodes have been left out

    def without(self, silent: AbstractSet[Node]) -> "Topology":
        """The same nodes, but silent ones own nothing."""
        gone = [i for i, node in enumerate(self.nodes) if node in silent]
        if not gone:
            return self
        owner = np.where(np.isin(self.owner, gone), -1, self.owner)
        return replace(self, owner=owner, partial=True)

    def node(self, tag: int) -> Node:
        """Owner of a tag. Raises UnavailableError when no node serves it."""
        index = int(self.owner[tag])
        if index < 0:
            raise UnavailableError(f"no node of the cluster serves slot {_TAG_SLOTS[tag]}")
        return self.nodes[index]


def one(node: Node) -> Topology:
    """A single server."""
    return Topology((node,), np.zeros(TAGS, np.intp))


def discover(
    address: Address,
    known: "Topology | None",
    deadline: float,
    silent: AbstractSet[Node] = frozenset(),
) -> Op[Topology]:
    """Ask one server after another, silent ones last. Raises the last failure if none answers."""
    if address.kind == "single":
        return one(address.seeds[0])
    candidates = list(address.seeds)
    if known is not None and address.kind == "cluster":
        candidates = [*known.nodes, *candidates]
    candidates = sorted(dict.fromkeys(candidates), key=lambda node: node in silent)
    error: FeatureStoreError = UnavailableError("no server is named")
    for node in candidates:
        last = node == candidates[-1]
        until = deadline if last else min(deadline, time.monotonic() + _ASK_S)
        try:
            if address.kind == "cluster":
                replies = yield from ask(node, command("CLUSTER", "SLOTS"), 1, until)
                return slots_of(checked(replies, node)[0], node)
            payload = command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master)
            (reply,) = checked((yield from ask(node, payload, 1, until)), node)
        except FeatureStoreError as failed:
            error = failed
            continue
        if isinstance(reply, list) and len(reply) == 2:
            return one(Node(_text(reply[0]), int(_text(reply[1]))))
        error = ServerError(f"sentinel {node} knows no master named {address.master!r}")
    raise error


def _text(reply: Reply) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def slots_of(reply: Reply, asked: Node) -> Topology:
    """Read the answer of CLUSTER SLOTS."""
    if not isinstance(reply, list):
        raise ServerError(f"{asked} is no cluster member: CLUSTER SLOTS gave {reply!r}")
    nodes: dict[Node, int] = {}
    owner = np.full(TAGS, -1, np.intp)
    for entry in reply:
        if not isinstance(entry, list) or len(entry) < 3 or not isinstance(entry[2], list):
            raise ServerError(f"{asked} gave slots that cannot be read: {entry!r}")
        first, last = int(_text(entry[0])), int(_text(entry[1]))
        host = _text(entry[2][0] or b"") or asked.host
        index = nodes.setdefault(Node(host, int(_text(entry[2][1]))), len(nodes))
        for tag, slot in enumerate(_TAG_SLOTS):
            if first <= slot <= last:
                owner[tag] = index
    if not nodes:
        raise UnavailableError(f"{asked} says that its cluster serves no slots yet")
    return Topology(tuple(nodes), owner, clustered=True)
