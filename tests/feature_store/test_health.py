"""Nodes that hang, fall or move: no lookup waits for one twice, and none that moves is lost."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from conftest_tools import REDIS, answers, cluster, need, opened, server, until

from feature_store import FeatureStore, Status
from feature_store.address import parse
from feature_store.embedded import EmbeddedValkey
from feature_store.keys import tag_of
from feature_store.ports import free_port
from feature_store.record import hash_ids
from feature_store.topology import Topology

IDS = np.arange(1, 1001)
CODES = np.random.default_rng(5).integers(0, 65535, (1000, 6)).astype(np.uint16)


def core_of(store: Any) -> Any:
    return (store if isinstance(store, FeatureStore) else store._store)._core


def test_a_hung_server_is_left_out_until_it_answers(driver: str) -> None:
    with EmbeddedValkey() as server, opened(driver, server.url) as store:
        store.write(IDS, CODES)
        os.kill(server.pid, signal.SIGSTOP)
        try:

            def left_out() -> bool:
                store.lookup(IDS, deadline=0.005)
                return bool(core_of(store).reading.partial)

            until(left_out)
            before = store.counters["silent UnavailableError"]
            for _ in range(100):  # each would take a minute if it waited
                assert (store.lookup(IDS, deadline=60).status == Status.UNAVAILABLE).all()
            assert store.counters["silent UnavailableError"] >= before
        finally:
            os.kill(server.pid, signal.SIGCONT)
        until(lambda: (store.lookup(IDS).status == Status.HIT).all())
        until(lambda: not core_of(store).reading.partial)


def test_a_server_that_refuses_is_asked_each_time(driver: str) -> None:
    """Refusals cost nothing, so a server that comes back serves at once."""
    with EmbeddedValkey() as server, opened(driver, server.url) as store:
        for _ in range(3):
            server.close()
            for _ in range(20):
                assert (store.lookup(IDS).status == Status.UNAVAILABLE).all()
            server.start()
            until(lambda: (store.lookup(IDS).status == Status.MISS).all())


@pytest.mark.parametrize("near_bytes", [0, 1 << 20])
def test_the_other_shards_go_on_while_the_pointers_hangs(driver: str, near_bytes: int) -> None:
    with cluster() as nodes:
        url = f"redis+cluster://127.0.0.1:{nodes[1][0]}"
        with opened(driver, url, near_cache_bytes=near_bytes) as store:
            store.write(IDS, CODES)
            reached = tag_of(hash_ids(IDS)) >= 23  # tags 0-21, the pointer's too, lie on the first
            os.kill(nodes[0][1].pid, signal.SIGSTOP)
            try:

                def left_out() -> bool:
                    store.lookup(IDS, deadline=0.05)
                    return bool(core_of(store).reading.partial)

                until(left_out)
                for _ in range(20):
                    found = store.lookup(IDS, deadline=5)
                    assert (found.status[reached] == Status.HIT).all()
                    np.testing.assert_array_equal(found.codes[reached], CODES[reached])
            finally:
                os.kill(nodes[0][1].pid, signal.SIGCONT)
            until(lambda: (store.lookup(IDS).status == Status.HIT).all())


@pytest.fixture
def moving() -> Iterator[tuple[list[Any], list[Any]]]:
    with cluster() as nodes, ExitStack() as stack:
        yield nodes, [stack.enter_context(redis.Redis(port=port)) for port, _ in nodes]


def _move(clients: list[Any], slot: int, target: int, port: int) -> None:
    """Move a slot as `redis-cli --cluster reshard` does, key by key."""
    names = [client.cluster("MYID").decode() for client in clients]
    source = next(i for i, name in enumerate(names) if name == _owner(clients[target], slot))
    if source == target:
        return
    there, here = clients[target], clients[source]
    there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    while keys := here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
        here.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
    for client in (there, here, *clients):
        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[target])


def _owner(client: Any, slot: int) -> str:
    for first, last, master, *_ in client.execute_command("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return str(master[2].decode())
    raise AssertionError("nobody owns the slot")


def test_no_lookup_fails_while_slots_move(moving: Any, driver: str) -> None:
    """All slots of ads, the pointer's among them, go round the nodes under readers and flips."""
    nodes, clients = moving
    with opened(driver, f"redis+cluster://127.0.0.1:{nodes[0][0]}") as store:
        store.write(IDS, CODES)
        slots = sorted(
            {clients[0].cluster("KEYSLOT", store.keys.record(i, 1)) for i in range(1, 200)}
        )
        chosen = [clients[0].cluster("KEYSLOT", store.keys.pointer), *slots[::8]]
        done = threading.Event()
        failed: list[object] = []

        def read() -> None:
            with FeatureStore.connect(f"redis+cluster://127.0.0.1:{nodes[1][0]}") as reader:
                while not done.is_set():
                    found = reader.lookup(IDS, deadline=20)
                    if not np.array_equal(found.codes, CODES):
                        failed.append(np.unique(found.status, return_counts=True))

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for slot in chosen:
                for target, (port, _) in enumerate(nodes):
                    _move(clients, slot, target, port)
                    found = store.lookup(IDS, deadline=20)
                    np.testing.assert_array_equal(found.codes, CODES)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert not failed
        store.write(IDS, CODES[::-1], version="2")
        store.activate("2")
        np.testing.assert_array_equal(store.lookup(IDS, deadline=5).codes, CODES[::-1])


def test_a_map_without_silent_nodes_owns_nothing_there() -> None:
    a, b = parse("redis+cluster://x:1,y:2").seeds
    whole = Topology((a, b), np.arange(64) % 2, clustered=True)
    left = whole.without({b})
    assert left.owner.tolist() == [0, -1] * 32
    assert left.partial
    assert left.nodes == whole.nodes
    assert whole.without(set()) is whole


def test_a_master_that_lives_on_as_a_replica_is_left(driver: str, tmp_path: Path) -> None:
    """It would answer lookups with what it has, and hear of a takedown late, or never."""
    need("redis-server")
    first, second, watch = free_port(), free_port(), free_port()
    local = ["--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0", "--port"]
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {watch}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {first} 1\n")
    with ExitStack() as stack:
        stack.enter_context(server(REDIS, *local, str(first)))
        follows = ["--replicaof", "127.0.0.1", str(first)]
        stack.enter_context(server(REDIS, *local, str(second), *follows))
        until(lambda: answers(first) and answers(second))
        old, new = (stack.enter_context(redis.Redis(port=port)) for port in (first, second))
        until(lambda: new.info("replication")["master_link_status"] == "up")
        stack.enter_context(server(REDIS, str(config), "--sentinel", plain=True))
        until(lambda: answers(watch))
        sentinel = stack.enter_context(redis.Redis(port=watch))

        def ordered() -> bool:
            try:
                return bool(sentinel.execute_command("SENTINEL", "FAILOVER", "main"))
            except redis.ResponseError:  # it has not looked at the replica yet
                return False

        url = f"redis+sentinel://127.0.0.1:{watch}/main"
        store = stack.enter_context(opened(driver, url))
        store.write([1], CODES[:1])
        # A new replica is sent nothing before its first acknowledgement, up to a second later.
        until(lambda: new.dbsize() == old.dbsize())
        until(ordered)
        until(lambda: old.info("replication")["role"] == "slave")
        until(lambda: store.lookup([1]) and core_of(store).map.nodes[0].port == second)
        until(lambda: store.lookup([1]).status.tolist() == [Status.HIT])
