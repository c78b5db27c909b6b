"""Exchanges over sockets that are slow, torn, silent or interrupted, compiled and not."""

import signal
import socket
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
from conftest_scripted import (
    KEYS,
    REPLY,
    REQUEST,
    VALUES,
    exchange,
    heard,
    links_to,
    reply,
    server,
    whole,
)

from feature_store import record
from feature_store.decoding import Share, call_of, collect
from feature_store.errors import UnavailableError
from feature_store.ops import Exchange, Node, Op, Outcome
from feature_store.reading import Asked, blank


@pytest.mark.parametrize("step", [1, 7, 30, 31, 1000])
def test_replies_that_come_in_pieces(loops: str, step: int) -> None:
    def drip(conn: socket.socket) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        heard(conn, REQUEST)
        for at in range(0, len(REPLY), step):
            conn.sendall(REPLY[at : at + step])

    with server(drip) as node:
        links = links_to(node)
        whole(*exchange([node], links)[0])
        links.close()


def test_a_connection_that_ends_in_mid_reply_is_an_outcome(loops: str) -> None:
    def cut(conn: socket.socket) -> None:
        heard(conn, REQUEST)
        conn.sendall(REPLY[:1500])

    with server(cut) as node:
        asked, outcome = exchange([node], links_to(node))[0]
    assert isinstance(outcome, UnavailableError)
    assert (asked.answer.status == record.Status.UNAVAILABLE).all()
    assert (asked.answer.codes == 65535).all()


def test_a_connection_that_died_idle_is_replaced(loops: str) -> None:
    def answer(conn: socket.socket) -> None:
        heard(conn, REQUEST)
        conn.sendall(REPLY)

    with server(answer, answer, answer) as node:
        links = links_to(node)
        for _ in range(3):
            whole(*exchange([node], links)[0])
        links.close()


def test_a_silent_server_is_late(loops: str) -> None:
    release = threading.Event()

    def silent(conn: socket.socket) -> None:
        heard(conn, REQUEST)
        conn.sendall(REPLY[:40])
        release.wait(20)

    with server(silent) as node:
        _, outcome = exchange([node], links_to(node), 0.05)[0]
        release.set()
    assert isinstance(outcome, UnavailableError)
    assert "deadline" in str(outcome)


def test_values_of_other_sizes_are_read_on_the_careful_path(loops: str) -> None:
    """However long, and however late in the reply: the others are not lost."""
    odd = reply([*VALUES[:60], b"x" * 300_000, *VALUES[61:], bytes(24)])

    def answer(conn: socket.socket) -> None:
        heard(conn, REQUEST)
        conn.sendall(odd[:100])
        conn.sendall(odd[100:])

    with server(answer) as node:
        links = links_to(node)
        asked, outcome = exchange([node], links)[0]
        links.close()
    assert outcome is None
    assert asked.corrupt == 1
    assert asked.answer.status.tolist() == [1] * 60 + [0] + [1] * 39
    assert asked.pointer == bytes(24)


def test_a_server_that_reads_slowly_gets_all_of_a_long_request(loops: str) -> None:
    ids = np.arange(1, 200_001, dtype=np.int64)
    asked = Asked(ids, 1, None, blank(len(ids)))
    call = call_of(KEYS, asked, Share(Node("n", 1)))
    total = len(call.payload)
    body = b"*200001\r\n" + b"$-1\r\n" * 200_001
    seen: list[int] = []

    def slow(conn: socket.socket) -> None:
        left = total
        while left:
            left -= len(conn.recv(1 << 15))
        seen.append(total)
        conn.sendall(body)

    with server(slow) as node:
        call.node = node

        def op() -> Op[list[Outcome]]:
            return (yield Exchange([call], time.monotonic() + 60))

        links = links_to(node)
        assert links.run(op()) == [None]
        links.close()
    assert seen == [total]
    collect(asked, Share(Node("n", 1)), call, None)
    assert (asked.answer.status == record.Status.MISS).all()


def test_several_nodes_fail_apart(loops: str) -> None:
    """Over open connections, as lookups of a cluster: one answers, one is cut, one is silent."""
    release = threading.Event()

    def answer(conn: socket.socket) -> None:
        for _ in range(2):
            heard(conn, REQUEST)
            conn.sendall(REPLY)

    def cut(conn: socket.socket) -> None:
        heard(conn, REQUEST)
        conn.sendall(REPLY)
        heard(conn, REQUEST)
        conn.sendall(REPLY[:77])

    def silent(conn: socket.socket) -> None:
        heard(conn, REQUEST)
        conn.sendall(REPLY)
        release.wait(20)

    with ExitStack() as stack:
        nodes = [stack.enter_context(server(script)) for script in (answer, cut, silent)]
        links = links_to(nodes[0])
        for asked, outcome in exchange(nodes, links):
            whole(asked, outcome)
        answers = exchange(nodes, links, 1.5)
        release.set()
        links.close()
    whole(*answers[0])
    assert "closed" in str(answers[1][1])
    assert "deadline" in str(answers[2][1])


def test_signals_are_heeded_while_waiting(loops: str) -> None:
    """A handler runs; if it raises, the exchange ends, and its connection with it."""
    release = threading.Event()
    calls: list[int] = []

    def late(conn: socket.socket) -> None:
        heard(conn, REQUEST)
        release.wait(20)
        conn.sendall(REPLY)

    def once(*_: object) -> None:
        calls.append(1)
        release.set()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGALRM)
    try:
        with server(late, late) as node:
            links = links_to(node)
            signal.signal(signal.SIGALRM, once)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            whole(*exchange([node], links)[0])
            assert calls == [1]
            links.close()
            release.clear()
            signal.signal(signal.SIGALRM, stop)

            def interrupted() -> None:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                exchange([node], links)

            with pytest.raises(KeyboardInterrupt):
                interrupted()
            release.set()
            assert not any(links._idle.values())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
