"""Bytes that nobody asked for: a connection that held them answers no further lookup."""

import asyncio
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import redis
from conftest_scripted import (
    IDS,
    KEYS,
    REPLY,
    REQUEST,
    exchange,
    heard,
    links_to,
    reply,
    server,
    whole,
)
from conftest_tools import backend_of, opened

from feature_store import FeatureStore, Status
from feature_store.address import parse
from feature_store.aio import AsyncLinks
from feature_store.decoding import Share, call_of, collect
from feature_store.links import Links
from feature_store.ops import Exchange, Node, Op, Outcome
from feature_store.reading import Asked, blank

NOTHING = reply([None] * 101)  # would be taken for "no ad is there"


def spoiling(spoil: threading.Event) -> Callable[[socket.socket], None]:
    def script(conn: socket.socket) -> None:
        heard(conn, REQUEST)
        conn.sendall(REPLY)
        spoil.wait(20)
        conn.sendall(NOTHING)
        conn.recv(1)

    return script


def answering(conn: socket.socket) -> None:
    heard(conn, REQUEST)
    conn.sendall(REPLY)
    conn.recv(1)


def arrived(links: Links) -> None:
    """Wait until every idle connection holds what its server sent."""
    for idle in links._idle.values():
        for link in idle:
            assert select.select([link.sock], [], [], 20)[0]


@pytest.mark.parametrize("count", [1, 2])
def test_what_came_while_idle_is_no_answer(loops: str, count: int) -> None:
    spoil = threading.Event()
    with ExitStack() as stack:
        scripts = (spoiling(spoil), answering)
        nodes = [stack.enter_context(server(*scripts)) for _ in range(count)]
        links = links_to(nodes[0])
        for asked, outcome in exchange(nodes, links):
            whole(asked, outcome)
        spoil.set()
        arrived(links)
        for asked, outcome in exchange(nodes, links):
            whole(asked, outcome)
        links.close()


def test_what_follows_a_reply_spoils_it_and_its_connection(loops: str) -> None:
    def more(conn: socket.socket) -> None:
        heard(conn, REQUEST)
        conn.sendall(REPLY + NOTHING)
        conn.recv(1)

    with server(more, answering) as node:
        links = links_to(node)
        asked, outcome = exchange([node], links)[0]
        assert outcome is not None
        assert "follow the reply" in str(outcome)
        assert (asked.answer.status == Status.UNAVAILABLE).all()
        assert not any(links._idle.values())
        whole(*exchange([node], links)[0])
        links.close()


def test_what_a_server_says_before_it_is_asked_is_told(loops: str) -> None:
    """As servers do that have too many clients."""

    def full(conn: socket.socket) -> None:
        conn.sendall(b"-ERR max number of clients reached\r\n")
        conn.recv(1)

    with server(full) as node:
        links = links_to(node)
        links._idle[node].append(links._take(node, time.monotonic() + 10))
        arrived(links)
        asked, share = Asked(IDS, 1, None, blank(100)), Share(node)
        call = call_of(KEYS, asked, share)

        def op() -> Op[list[Outcome]]:
            return (yield Exchange([call], time.monotonic() + 10))

        (outcome,) = links.run(op())
        links.close()
        refused = collect(asked, share, call, outcome)
    assert "max number of clients" in str([outcome, *refused])
    assert loops == "numpy" or (asked.answer.status == Status.UNAVAILABLE).all()


async def test_what_came_while_idle_is_no_answer_to_asyncio(loops: str) -> None:
    spoil = threading.Event()

    async def ask(links: AsyncLinks, node: Node) -> None:
        asked, share = Asked(IDS, 1, None, blank(100)), Share(node)
        call = call_of(KEYS, asked, share)

        def op() -> Op[list[Outcome]]:
            return (yield Exchange([call], time.monotonic() + 10))

        (outcome,) = await links.run(op())
        collect(asked, share, call, outcome)
        whole(asked, outcome)

    with server(spoiling(spoil), answering) as node:
        links = AsyncLinks(parse(f"redis://{node}"))
        await ask(links, node)
        (link,) = links._idle[node]
        assert link.transport is not None
        spoil.set()
        # Blocks the loop, so that the bytes have come and the loop has not read them.
        assert select.select([link.transport.get_extra_info("socket")], [], [], 20)[0]
        await ask(links, node)
        links.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["tls", "unix"])
def test_connections_that_are_sound_are_kept(driver: str, kind: str) -> None:
    """TLS too, whose own messages are nobody's answer."""
    with backend_of(kind) as backend, redis.Redis(port=backend.ports[0]) as client:
        with FeatureStore.connect(backend.url) as writer:
            writer.write([1], [[1, 2, 3, 4, 5, 6]])
        with opened(driver, backend.url) as store:
            store.lookup([1])
            before = client.info("stats")["total_connections_received"]
            for _ in range(50):
                assert store.lookup([1]).status.tolist() == [Status.HIT]
            assert client.info("stats")["total_connections_received"] == before
