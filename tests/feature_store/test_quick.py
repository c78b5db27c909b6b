"""The plain lookup in one compiled call: which take it, and what becomes of those that fail.

What becomes of them is the same where nothing is compiled.
"""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis
from conftest_scripted import CODES, IDS, KEYS, REQUEST, VALUES, Script, heard, reply, server

from feature_store import FeatureStore, Status, catalog, compiled, link, methods, topology
from feature_store.address import parse
from feature_store.core import Core
from feature_store.decoding import Share, call_of
from feature_store.links import Begun, Links
from feature_store.lookup import Found
from feature_store.ops import Node
from feature_store.quick import Quick
from feature_store.reading import Asked, blank
from feature_store.single import groups_of

POINTER = catalog.seal_pointer(1, 0, 1, 1)
WHOLE = reply([*VALUES, POINTER])


@pytest.fixture
def fast() -> compiled.Fast:
    if compiled.fast is None:
        pytest.skip("feature_store._fast is not built")
    return compiled.fast


class Scripted:
    """Lookups of a server that follows scripts, over a connection that is open."""

    def __init__(self, node: Node) -> None:
        address = parse(f"redis://{node}")
        view = catalog.View(POINTER, 1, 0, 1, 1, {"1": 1})
        self.core = Core(address, KEYS, topology.one(node), view=view)
        self.links = Links(address)
        self.links.give(link.open_link(address, node, time.monotonic() + 10))
        self.quick = Quick(self.core, self.links)

    def lookup(self, deadline: float = 10.0) -> Found:
        return self.quick.lookup(IDS, None, deadline)

    def close(self) -> None:
        self.core.close()
        self.core.join()
        self.links.close()


def looked_up(*scripts: Script, deadline: float = 10.0) -> tuple[Found, dict[str, int], int]:
    """What the scripts give, what was counted, connections left."""
    with server(*scripts) as node:
        scripted = Scripted(node)
        try:
            found = scripted.lookup(deadline)
            counted = dict(scripted.core.tallies.sum().events)
            return found, counted, len(scripted.links.idle(node))
        finally:
            scripted.close()


def whole(found: Found) -> None:
    assert (found.status == Status.HIT).all()
    assert found.version == "1"
    np.testing.assert_array_equal(found.codes, CODES)
    assert not found.flags.any()


def sending(*pieces: bytes) -> Script:
    def script(conn: socket.socket) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        heard(conn, REQUEST)
        for piece in pieces:
            conn.sendall(piece)
        if pieces[-1]:
            conn.recv(1)

    return script


@pytest.mark.parametrize("step", [1, 31, 1000, 5000])
def test_a_reply_in_pieces_is_one_lookup(loops: str, step: int) -> None:
    pieces = [WHOLE[at : at + step] for at in range(0, len(WHOLE), step)]
    found, counted, left = looked_up(sending(*pieces))
    whole(found)
    assert (counted["lookups"], counted["ids"], left) == (1, 100, 1)


@pytest.mark.parametrize(
    ("value", "corrupt"), [(b"foreign", 1), (bytes(24), 1), (VALUES[1], 1), (None, 0)]
)
def test_a_row_that_is_none_costs_itself_only(
    loops: str, value: bytes | None, corrupt: int
) -> None:
    found, counted, left = looked_up(sending(reply([value, *VALUES[1:], POINTER])))
    assert found.status.tolist() == [Status.MISS] + [Status.HIT] * 99
    assert (counted.get("corrupt", 0), counted["lookups"], left) == (corrupt, 1, 1)


def test_a_reply_longer_than_the_buffer_is_read_on(loops: str) -> None:
    values = [*VALUES[:60], b"x" * 300_000, *VALUES[61:], POINTER]
    found, counted, left = looked_up(sending(reply(values)))
    assert np.flatnonzero(found.status != Status.HIT).tolist() == [60]
    assert (counted["corrupt"], left) == (1, 1)


def test_a_connection_that_died_idle_is_replaced(loops: str) -> None:
    found, counted, _ = looked_up(lambda conn: None, sending(WHOLE))
    whole(found)
    assert counted["lookups"] == 1


def test_a_connection_that_ends_in_mid_reply_costs_the_answer(loops: str) -> None:
    found, counted, left = looked_up(sending(WHOLE[:1500], b""))
    assert (found.status == Status.UNAVAILABLE).all()
    assert (found.codes == 65535).all()
    assert (counted["unavailable"], left) == (1, 0)


def test_what_is_late_is_asked_once_only(loops: str) -> None:
    """No second request for a server that is slow already, and no second wait."""
    more: list[int] = []

    def silent(conn: socket.socket) -> None:
        heard(conn, REQUEST)
        conn.settimeout(20)
        more.append(len(conn.recv(1)))

    found, counted, left = looked_up(silent, deadline=0.05)
    assert (found.status == Status.UNAVAILABLE).all()
    assert (counted["unavailable"], left, more) == (1, 0, [0])


def test_an_interrupt_ends_the_lookup_and_its_connection(loops: str) -> None:
    release = threading.Event()

    def late(conn: socket.socket) -> None:
        heard(conn, REQUEST)
        release.wait(20)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with server(late) as node:
            scripted = Scripted(node)

            def interrupted() -> None:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                scripted.lookup()

            with pytest.raises(KeyboardInterrupt):
                interrupted()
            release.set()
            assert scripted.links.idle(node) == []
            scripted.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("keys", [0, 1, 3, 16])
def test_what_is_sent_is_what_the_common_way_would_send(fast: compiled.Fast, keys: int) -> None:
    for n in (1, 2, 3, 15, 16, 17, 99):
        with server(lambda conn: None) as node:
            scripted = Scripted(node)
            scripted.core.fetched_ahead = keys
            plan = Quick(scripted.core, scripted.links)._plan
            asked = Asked(IDS[:n].copy(), 1, None, blank(n))
            assert plan.parts is not None
            out: Any = fast.ask(plan.parts, asked.ids, 10)
            (begun,) = [Begun(*out)]
            share = Share(node, None, groups_of(n, keys))
            assert call_of(KEYS, asked, share).payload == begun.payload
            begun.link.close()
            scripted.close()


def test_what_was_begun_for_another_version_is_begun_anew(fast: compiled.Fast) -> None:
    with server(sending(WHOLE), sending(WHOLE)) as node:
        scripted = Scripted(node)
        old = scripted.links.idle(node).pop()
        begun = Begun(old, b"what another version asks", time.monotonic())
        core, links = scripted.core, scripted.links
        whole(links.run(methods.lookup(core, IDS, None, 10.0), begun))
        assert old.sock.fileno() == -1
        scripted.close()


@pytest.fixture
def uncommon(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FeatureStore, list[object]]]:
    """A store, and the lookups that go the common way."""
    common: list[object] = []
    lookup = methods.lookup

    def told(*args: Any) -> Any:
        common.append(args[1])
        return lookup(*args)

    with FeatureStore.connect(valkey_url) as store:
        store.write(IDS, CODES)
        store.lookup(IDS)
        monkeypatch.setattr(methods, "lookup", told)
        yield store, common


def test_plain_lookups_take_it(
    fast: compiled.Fast, uncommon: tuple[FeatureStore, list[object]]
) -> None:
    store, common = uncommon
    before = store.counters["lookups"]
    for deadline in (None, 5, 10.0, 3600):
        whole(store.lookup(IDS, deadline=deadline))
        whole(store.lookup(IDS.copy().astype(np.longlong), None, deadline))
    assert not common
    assert store.counters["lookups"] - before == 8
    assert sum(store.latency_us) == store.counters["lookups"]


def test_others_go_the_common_way(uncommon: tuple[FeatureStore, list[object]]) -> None:
    store, common = uncommon
    doubled = np.repeat(IDS, 2)
    others: list[Any] = [IDS.tolist(), IDS.astype(np.int32), doubled[::2], IDS.astype(">i8")]
    for ids in (*others, tuple(IDS)):
        whole(store.lookup(ids))
    deadlines: list[Any] = [np.float32(10), 4000.0, 10**400]
    for deadline in deadlines:
        whole(store.lookup(IDS, deadline=deadline))
    whole(store.lookup(IDS, version="1"))
    assert store.lookup(np.empty(0, np.int64)).codes.shape == (0, 6)
    assert len(common) == 10


def test_servers_that_end_connections_cost_no_answer(valkey_url: str, loops: str) -> None:
    with FeatureStore.connect(valkey_url) as store, redis.Redis.from_url(valkey_url) as client:
        store.write(IDS, CODES)
        for _ in range(5):
            client.client_kill_filter(_type="normal", skipme=True)
            whole(store.lookup(IDS))


def test_versions_that_change_hands_are_followed(valkey_url: str, loops: str) -> None:
    """Answers are of one version each, and cost one lookup each, whoever flips meanwhile."""
    with FeatureStore.connect(valkey_url) as store, FeatureStore.connect(valkey_url) as other:
        store.write(IDS, CODES)
        store.write(IDS, CODES ^ 1, version="2")
        before = store.counters["lookups"]
        for name, codes in [("2", CODES ^ 1), ("1", CODES)] * 5:
            other.activate(name)
            for _ in range(2):
                found = store.lookup(IDS)
                assert found.version == name
                np.testing.assert_array_equal(found.codes, codes)
        assert store.counters["lookups"] - before == 20
        assert store.counters.get("corrupt", 0) == 0


def test_a_plan_that_is_none_is_refused(fast: compiled.Fast) -> None:
    for plan in ((), (1,) * 18, (b"",) * 18, None):
        with pytest.raises(TypeError, match="a plan"):
            fast.ask(plan, IDS, 1.0)  # type: ignore[arg-type]
