"""Servers that die, hang, move, fork or come back empty: rows are UNAVAILABLE, nothing raises."""

import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import redis
from conftest_tools import REDIS, answers, cluster, need, opened, server, until

from feature_store import FeatureStore, Status
from feature_store.embedded import EmbeddedValkey
from feature_store.errors import AccessError, AddressError, UnavailableError
from feature_store.keys import tag_of
from feature_store.ports import free_port
from feature_store.record import hash_ids

IDS = np.arange(1, 1001)
CODES = np.random.default_rng(5).integers(0, 65535, (1000, 6)).astype(np.uint16)


def test_opening_what_cannot_be_opened_says_why(valkey_url: str) -> None:
    for url in (
        "",
        "http://x",
        "unix://",
        "redis+cluster://",
        "redis+sentinel://h:1",
        "redis://h:x",
        "redis://h/one",
    ):
        with pytest.raises(AddressError):
            FeatureStore.connect(url)
    with pytest.raises(UnavailableError, match="Check that the server runs"):
        FeatureStore.connect(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(UnavailableError):
        FeatureStore.connect("unix:///nowhere/socket")
    with pytest.raises(AccessError, match="password"):
        FeatureStore.connect(valkey_url.replace("redis://", "redis://:wrong@"))


def test_a_server_that_dies_and_comes_back_empty(driver: str) -> None:
    with EmbeddedValkey() as embedded, opened(driver, embedded.url) as store:
        store.write(IDS, CODES)
        embedded.close()
        found = store.lookup(IDS)
        assert (found.status == Status.UNAVAILABLE).all()
        assert (found.codes == 65535).all()
        assert found.version == "1"
        embedded.start()
        until(lambda: (store.lookup(IDS).status == Status.MISS).all())
        store.write(IDS, CODES)
        assert (store.lookup(IDS).status == Status.HIT).all()


def test_a_server_that_hangs_costs_no_more_than_the_deadline(driver: str) -> None:
    with EmbeddedValkey() as embedded, opened(driver, embedded.url) as store:
        store.write(IDS, CODES)
        os.kill(embedded.pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            assert (store.lookup(IDS, deadline=0.005).status == Status.UNAVAILABLE).all()
            assert time.monotonic() - start < 10.0  # benchmarks measure how much less
        finally:
            os.kill(embedded.pid, signal.SIGCONT)
        until(lambda: (store.lookup(IDS).status == Status.HIT).all())


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSTOP])
def test_a_shard_that_fails_takes_only_its_own_rows(driver: str, kill: signal.Signals) -> None:
    with cluster() as nodes:
        url = f"redis+cluster://127.0.0.1:{nodes[0][0]}"
        with opened(driver, url) as store:
            store.write(IDS, CODES)
            tag = tag_of(hash_ids(IDS))
            lost = tag * 3 // 64 == 1  # the second of three masters owns the tags 22-42
            os.kill(nodes[1][1].pid, kill)
            sure = tag % 21 != 0  # tags whose slots do not straddle two masters

            def apart() -> bool:
                # Others may be late on a busy machine, so rows are UNAVAILABLE until they are not.
                found = store.lookup(IDS, deadline=0.2)
                hit = found.status == Status.HIT
                assert (hit | (found.status == Status.UNAVAILABLE)).all()
                np.testing.assert_array_equal(found.codes[hit], CODES[hit])
                return np.array_equal(hit[sure], ~lost[sure])

            until(apart)
            if kill == signal.SIGSTOP:
                os.kill(nodes[1][1].pid, signal.SIGCONT)
                until(lambda: (store.lookup(IDS).status == Status.HIT).all())


def test_a_replica_takes_over(driver: str) -> None:
    with cluster(replicas=True) as nodes:
        hosts = ",".join(f"127.0.0.1:{port}" for port, _ in nodes)
        with opened(driver, f"redis+cluster://{hosts}") as store:
            store.write(IDS, CODES)
            until(lambda: store.block([1], "replicated").replicated >= 1)
            store.unblock([1])
            until(lambda: _replicated(nodes[1][0], nodes[4][0]))
            nodes[1][1].kill()
            until(lambda: (store.lookup(IDS).status == Status.HIT).all())
            np.testing.assert_array_equal(store.lookup(IDS).codes, CODES)
            store.write(IDS, CODES[::-1])
            np.testing.assert_array_equal(store.lookup(IDS).codes, CODES[::-1])


def _replicated(master: int, replica: int) -> bool:
    """A new replica is sent nothing before its first acknowledgement, up to a second later."""
    with redis.Redis(port=master) as one, redis.Redis(port=replica) as other:
        return bool(one.dbsize() == other.dbsize())


def test_slots_that_move_lose_no_lookup(driver: str) -> None:
    with cluster() as nodes, ExitStack() as stack:
        clients = [stack.enter_context(redis.Redis(port=port)) for port, _ in nodes]
        with opened(driver, f"redis+cluster://127.0.0.1:{nodes[0][0]}") as store:
            store.write(IDS, CODES)
            asked = [*IDS.tolist(), 5001, 5002, 5003]
            slot = clients[0].cluster("KEYSLOT", store.keys.record(1, 1))
            by_port = {port: client for (port, _), client in zip(nodes, clients, strict=True)}
            source = by_port[_owner(clients[0], slot)]
            target = next(client for client in clients if client is not source)
            names = [client.cluster("MYID").decode() for client in (source, target)]
            target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
            source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
            port = target.connection_pool.connection_kwargs["port"]
            while True:
                _all_there(store, asked)
                keys = source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 4)
                if not keys:
                    break
                source.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
            for client in (target, source, *clients):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[1])
                _all_there(store, asked)
            store.write(IDS, CODES)
            _all_there(store, asked)


def _owner(client: redis.Redis, slot: int) -> int:
    for first, last, master, *_ in client.execute_command("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return int(master[1])
    raise AssertionError("nobody owns the slot")


def _all_there(store: FeatureStore, asked: list[int]) -> None:
    found = store.lookup(asked, deadline=20)
    assert found.status.tolist() == [1] * 1000 + [0] * 3
    np.testing.assert_array_equal(found.codes[:1000], CODES)


def test_sentinels_name_the_new_master(driver: str, tmp_path: Path) -> None:
    need("redis-server")
    ports = [free_port() for _ in range(2)]
    watch = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {watch}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {ports[0]} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
    )
    with ExitStack() as stack:
        masters = []
        for i, port in enumerate(ports):
            options = [
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--repl-diskless-sync-delay",
                "0",
            ]
            if i:
                options += ["--replicaof", f"127.0.0.1 {ports[0]}"]
            masters.append(stack.enter_context(server(REDIS, *options)))
        until(lambda: all(answers(port) for port in ports))
        with redis.Redis(port=ports[0]) as client:
            until(lambda: client.info("replication")["connected_slaves"])
        stack.enter_context(_sentinel(config))
        until(lambda: answers(watch))
        with redis.Redis(port=watch) as client:
            until(lambda: client.execute_command("SENTINEL", "REPLICAS", "main"))
        url = f"redis+sentinel://127.0.0.1:{watch}/main"
        with opened(driver, url) as store:
            store.write(IDS, CODES)
            until(lambda: store.block([1], "replicated").replicated == 1)
            masters[0].kill()
            until(lambda: (store.lookup(IDS[1:]).status == Status.HIT).all())
            assert store.lookup([1]).status[0] == Status.BLOCKED
            store.write(IDS, CODES[::-1])
            np.testing.assert_array_equal(store.lookup(IDS[1:]).codes, CODES[::-1][1:])


def _sentinel(config: Path) -> object:
    return server(REDIS, str(config), "--sentinel", plain=True)


def test_threads_share_a_store(here: FeatureStore) -> None:
    here.write(IDS, CODES)
    wrong: list[object] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(100):
            asked = random.integers(1, 1001, 50)
            found = here.lookup(asked, deadline=5)
            if not np.array_equal(found.codes, CODES[asked - 1]):
                wrong.append(asked)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_opens_its_own_connections(valkey_url: str) -> None:
    with FeatureStore.connect(valkey_url, near_cache_bytes=1 << 20) as store:
        store.write(IDS, CODES)
        child = os.fork()
        if child == 0:
            good = all(np.array_equal(store.lookup(IDS).codes, CODES) for _ in range(20))
            os._exit(0 if good else 1)
        for _ in range(20):
            np.testing.assert_array_equal(store.lookup(IDS).codes, CODES)
        assert os.waitpid(child, 0)[1] == 0


def test_no_answer_mixes_versions(valkey_url: str) -> None:
    """Every row of an answer says which version it was written for; flips go on meanwhile."""
    with FeatureStore.connect(valkey_url) as store, FeatureStore.connect(valkey_url) as other:
        for version in ("1", "2"):
            store.write(IDS, np.full((1000, 6), int(version)), version=version)
        store.activate("1", force=True)
        stop = threading.Event()

        def flip() -> None:
            while not stop.is_set():
                other.activate("2", force=True)
                other.activate("1", force=True)

        thread = threading.Thread(target=flip)
        thread.start()
        seen: set[str] = set()
        try:
            for _ in range(200):
                assert _seen(store, seen)
            until(lambda: _seen(store, seen) and len(seen) == 2)
        finally:
            stop.set()
            thread.join()
        assert seen == {"1", "2"}


def _seen(store: FeatureStore, seen: set[str]) -> bool:
    found = store.lookup(IDS, deadline=20)
    assert (found.codes == int(found.version)).all()
    seen.add(found.version)
    return True


def test_foreign_and_corrupt_values_are_misses(
    plain: FeatureStore, loops: str, valkey_url: str
) -> None:
    plain.write(IDS[:10], CODES[:10])
    names = [plain.keys.record(i, 1) for i in range(1, 11)]
    with redis.Redis.from_url(valkey_url) as client:
        raw = client.get(names[0])
        client.set(names[0], raw[:-1])
        client.set(names[1], raw)  # another ad's record
        client.set(names[2], b"hello")
        client.set(names[3], b"")
        client.delete(names[4])
        client.rpush(names[4], "x")
        client.setrange(names[5], 3, b"\xff")
        client.set(names[6], b"y" * 100_000)
    found = plain.lookup(IDS[:10])
    assert found.status.tolist() == [0] * 7 + [1] * 3
    assert (found.codes[:7] == 65535).all()
    assert plain.counters["corrupt"] == 6  # the list is no value at all to MGET
    plain.write(IDS[:4], CODES[:4])  # and can be repaired
    assert plain.lookup(IDS[:10]).status.tolist() == [1] * 4 + [0] * 3 + [1] * 3
