"""The near cache is not believed once it has lost its channel, nor across a fork."""

import os
import signal
import socket
import threading
from contextlib import ExitStack

import numpy as np
import pytest
from conftest_near import CODES, IDS, warm
from conftest_proxy import Proxy
from conftest_tools import Backend, until

from feature_store import FeatureStore, Status, tracking
from feature_store.address import parse
from feature_store.channel import Channel
from feature_store.embedded import EmbeddedValkey
from feature_store.keys import Keys
from feature_store.link import Link
from feature_store.ops import Node
from feature_store.tracking import NearCache


def test_a_silent_channel_is_not_trusted_and_is_opened_anew(
    valkey_server: EmbeddedValkey, valkey_url: str
) -> None:
    with (
        Proxy(valkey_server.port) as proxy,
        FeatureStore.connect(valkey_url) as writer,
        FeatureStore.connect(f"redis://127.0.0.1:{proxy.port}", near_cache_bytes=1 << 20) as store,
    ):
        writer.write(IDS, CODES)
        warm(store)
        proxy.silent = True
        writer.block([7], "nobody tells")
        until(lambda: store.lookup([7], deadline=0.005).status[0] not in (Status.HIT,), 1.0)
        until(lambda: store.lookup([7], deadline=0.005).status[0] == Status.UNAVAILABLE, 2.0)
        proxy.silent = False
        until(lambda: store.lookup([7]).status[0] == Status.BLOCKED)
        warm(store)


def test_a_server_that_hangs_gives_stale_rows_then_none(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than in earnest, so that a busy machine does not sleep through it.
    monkeypatch.setattr(tracking, "STALE_S", 3.0)
    monkeypatch.setattr(tracking, "LOST_S", 3.5)
    with (
        EmbeddedValkey() as server,
        FeatureStore.connect(server.url, near_cache_bytes=1 << 20) as store,
    ):
        store.write(IDS, CODES)
        warm(store)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            seen = []

            def gone() -> bool:
                found = store.lookup(IDS[:3], deadline=0.005)
                seen.append(int(found.status[0]))
                if found.status[0] == Status.STALE:
                    np.testing.assert_array_equal(found.codes, CODES[:3])
                return bool((found.status == Status.UNAVAILABLE).all())

            until(gone)
            order = [Status.HIT, Status.STALE, Status.UNAVAILABLE]
            assert sorted(seen, key=order.index) == seen
            assert Status.STALE in seen
        finally:
            os.kill(server.pid, signal.SIGCONT)
        until(lambda: (store.lookup(IDS[:3]).status == Status.HIT).all())


def test_only_a_later_ping_proves_that_prefixes_are_watched() -> None:
    ours, server = socket.socketpair()
    with ours, server:
        channel = Channel(Link(Node("here", 0), ours))
        channel.ping()
        channel.watch(b"tracking")
        server.sendall(b"+PONG\r\n+OK\r\n")
        channel.receive()
        assert channel.heard > 0
        assert not channel.proven
        server.sendall(b"+PONG\r\n")
        channel.receive()
        assert channel.proven


def test_a_forked_child_has_a_cache_of_its_own(near: FeatureStore, writer: FeatureStore) -> None:
    """Parent and child both hear of a takedown, and of another one after the child has ended."""
    ready, blocked = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            warm(near)
            os.write(ready[1], b"x")
            os.read(blocked[0], 1)
            until(lambda: near.lookup([3]).status[0] == Status.BLOCKED)
            near.close()
            os._exit(0)
        finally:
            os._exit(1)
    os.read(ready[0], 1)
    warm(near)
    writer.block([3], "both")
    os.write(blocked[1], b"x")
    until(lambda: near.lookup([3]).status[0] == Status.BLOCKED)
    assert os.waitpid(child, 0)[1] == 0
    writer.block([4], "the parent")
    until(lambda: near.lookup([4]).status[0] == Status.BLOCKED)
    for end in (*ready, *blocked):
        os.close(end)


def test_a_takedown_reaches_every_cache_while_others_write(
    writer: FeatureStore, any_backend: Backend
) -> None:
    """All of 8 caches say BLOCKED soon after each block, while other ads change."""
    with ExitStack() as stack:
        stores = [
            stack.enter_context(FeatureStore.connect(any_backend.url, near_cache_bytes=1 << 20))
            for _ in range(8)
        ]
        for store in stores:
            warm(store)
        stop = threading.Event()

        def write() -> None:
            random = np.random.default_rng(0)
            with FeatureStore.connect(any_backend.url) as other:
                while not stop.wait(0.01):
                    chosen = random.integers(100, 1000, 10)
                    other.write(chosen, CODES[chosen])

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for ad_id in range(1, 21):
                writer.block([ad_id], "now")
                for store in stores:
                    until(lambda s=store, i=ad_id: s.lookup([i]).status[0] == Status.BLOCKED)
        finally:
            stop.set()
            thread.join()


def test_threads_that_ask_for_versions_at_once_ask_for_each_once() -> None:
    nodes: tuple[Node, ...] = ()
    cache = NearCache(parse("redis://x"), Keys("ads"), 1 << 16, lambda: nodes, lambda: (1, 2, 3))
    cache.close()  # nobody listens: only what it would listen to is looked at

    class Overtaken:
        """A lock that another thread held just before, and asked for two versions."""

        def __enter__(self) -> None:
            cache._watched = (1, 2)

        def __exit__(self, *_: object) -> None: ...

    cache._lock = Overtaken()  # type: ignore[assignment]
    cache._thread = threading.current_thread()
    for number in (2, 3):
        cache._watched = ()
        assert not cache.fresh(number)
        assert sorted(cache._watched) == sorted({1, 2, number})


def test_another_programs_keys_do_not_end_the_channel(valkey_url: str) -> None:
    """Names that begin as a bucket's of the watched version do, and go on otherwise."""
    with (
        FeatureStore.connect(valkey_url) as writer,
        FeatureStore.connect(valkey_url, near_cache_bytes=1 << 20) as store,
    ):
        writer.write(IDS, CODES)
        warm(store)
        for name in (b"zz{000}abc", b"05{zzz}abc", b"ff{000}abc", b"04{zzz}\xff\xff\xff"):
            writer.admin("SET", b"ads:b0001" + name, "foreign")
        writer.block([7], "heard after the foreign keys")
        until(lambda: store.lookup([7]).status[0] == Status.BLOCKED)
        warm(store)


def test_a_cache_that_is_told_nothing_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with EmbeddedValkey() as server, FeatureStore.connect(server.url) as writer:
        writer.write(IDS, CODES)
        rules = "on nopass ~* &* +@all -client|tracking"
        writer.admin("ACL", "SETUSER", "reader", *rules.split(" "))
        url = server.url.replace("redis://", "redis://reader:any@")
        with FeatureStore.connect(url, near_cache_bytes=1 << 20) as store:
            until(lambda: "not told of changes" in caplog.text)
            assert (store.lookup(IDS).status == Status.HIT).all()
    assert "client|tracking" in caplog.text
    assert caplog.text.count("not told of changes") == 1
