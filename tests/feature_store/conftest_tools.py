"""Servers of every kind that the store speaks to, and one face for sync and async stores.

A server that is not installed skips its tests locally and fails them in CI.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from feature_store import AsyncFeatureStore, FeatureStore
from feature_store.embedded import EmbeddedValkey, server_binary
from feature_store.ports import free_port

REDIS = shutil.which("redis-server") or "/usr/bin/redis-server"


def need(tool: str) -> None:
    if shutil.which(tool) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is missing; CI must install it")
        pytest.skip(f"{tool} is not installed")


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Poll until a condition holds; its value."""
    deadline = time.monotonic() + seconds
    while True:
        last = time.monotonic() > deadline  # looked at once more, had the machine been busy
        value = condition()
        if value:
            return value
        if last:
            raise AssertionError(f"did not come true within {seconds} s")
        time.sleep(0.01)


@contextmanager
def server(binary: str, *options: str, plain: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A server process with settings, in a folder of its own."""
    folder = tempfile.mkdtemp(prefix="store-")
    process = subprocess.Popen(
        [binary, *options, *([] if plain else ["--save", "", "--dir", folder])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def answers(port: int, **options: Any) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=1, **options) as client:
            return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        return False
    except redis.ResponseError:
        return True


@dataclass
class Backend:
    name: str
    url: str
    ports: list[int]  # where each of its nodes listens without TLS or a password

    def clients(self) -> list[redis.Redis]:
        """A client of each node, to look behind the store's back."""
        return [redis.Redis(port=port) for port in self.ports]

    def flush(self) -> None:
        """Empty all nodes."""
        for client in self.clients():
            with client:
                client.flushall()


@contextmanager
def cluster(masters: int = 3, replicas: bool = False) -> Iterator[list[Any]]:
    """A Valkey cluster: [(port, process)] of its masters, then of their replicas."""
    binary = str(server_binary())
    count = masters * (2 if replicas else 1)
    with ExitStack() as stack:
        nodes = []
        for _ in range(count):
            port = free_port()
            options = ["--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes"]
            options += ["--cluster-node-timeout", "1000", "--cluster-port", str(free_port())]
            options += ["--repl-diskless-sync-delay", "0"]
            # Or all shards refuse to answer a second after one was lost, however slow the test.
            options += ["--cluster-require-full-coverage", "no"]
            nodes.append((port, stack.enter_context(server(binary, *options))))
        clients = [stack.enter_context(redis.Redis(port=port)) for port, _ in nodes]
        until(lambda: all(answers(port) for port, _ in nodes))
        for i, client in enumerate(clients[:masters]):
            first, last = i * 16384 // masters, (i + 1) * 16384 // masters - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        ports = [_cluster_bus(client) for client in clients]
        for client in clients[1:]:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0][0], ports[0])
        until(lambda: all(_info(c)["cluster_known_nodes"] == str(count) for c in clients))
        if replicas:
            for i, client in enumerate(clients[masters:]):
                master = clients[i].execute_command("CLUSTER", "MYID").decode()
                until(lambda c=client, m=master: _replicate(c, m))
            until(lambda: all(c.info("replication")["connected_slaves"] for c in clients[:masters]))
        until(lambda: all(_info(c)["cluster_state"] == "ok" for c in clients))
        until(lambda: all(_info(c)["cluster_slots_ok"] == "16384" for c in clients))
        yield nodes


def _replicate(client: Any, master: str) -> bool:
    try:
        return bool(client.execute_command("CLUSTER", "REPLICATE", master))
    except redis.ResponseError:
        return False


def _cluster_bus(client: Any) -> int:
    return int(client.config_get("cluster-port")["cluster-port"])


def _info(client: Any) -> dict[str, str]:
    answer = client.execute_command("CLUSTER", "INFO")
    if isinstance(answer, dict):
        return {str(k): str(v) for k, v in answer.items()}
    return dict(line.split(":", 1) for line in answer.decode().split("\r\n") if ":" in line)


def make_certificates(folder: Path) -> None:
    subprocess.run(
        (
            f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {folder}/key.pem "
            f"-out {folder}/cert.pem -subj /CN=localhost "
            "-addext subjectAltName=DNS:localhost,IP:127.0.0.1"
        ).split(" "),
        check=True,
        capture_output=True,
    )


@contextmanager
def backend_of(kind: str) -> Iterator[Backend]:
    """A running server of a kind and its URL."""
    if kind == "valkey":
        with EmbeddedValkey() as embedded:
            yield Backend(kind, embedded.url, [embedded.port])
        return
    if kind == "cluster":
        with cluster() as nodes:
            ports = [port for port, _ in nodes]
            hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
            yield Backend(kind, f"redis+cluster://{hosts}", ports)
        return
    need("redis-server")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="store-") as name, ExitStack() as stack:
        folder = Path(name)
        options = ["--port", str(port), "--bind", "127.0.0.1"]
        url = f"redis://127.0.0.1:{port}"
        if kind == "unix":
            options += ["--unixsocket", str(folder / "socket")]
            url = f"unix://{folder / 'socket'}"
        if kind == "acl":
            rules = "+@all -@dangerous +info ~ads:* &* on >secret"
            options += ["--user", "tessera", *rules.split(" ")]
            url = f"redis://tessera:secret@127.0.0.1:{port}"
        if kind == "tls":
            need("openssl")
            make_certificates(folder)
            secure = free_port()
            options += ["--tls-port", str(secure), "--tls-auth-clients", "no"]
            options += ["--tls-cert-file", str(folder / "cert.pem")]
            options += ["--tls-key-file", str(folder / "key.pem")]
            url = f"rediss://localhost:{secure}?ssl_ca_certs={folder / 'cert.pem'}"
        stack.enter_context(server(REDIS, *options))
        until(lambda: answers(port))
        if kind == "sentinel":
            watch = free_port()
            config = folder / "sentinel.conf"
            config.write_text(
                f"port {watch}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port} 1\n"
            )
            stack.enter_context(server(REDIS, str(config), "--sentinel", plain=True))
            until(lambda: answers(watch))
            url = f"redis+sentinel://127.0.0.1:{watch}/main"
        yield Backend(kind, url, [port])


class Blocking:
    """An AsyncFeatureStore whose methods block, so that one suite tests both stores."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: AsyncFeatureStore) -> None:
        self._loop = loop
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(method):
            return method
        return lambda *args, **kwargs: self._loop.run_until_complete(method(*args, **kwargs))


@contextmanager
def opened(kind: str, url: str, **options: Any) -> Iterator[Any]:
    """A store, sync or async, with blocking methods."""
    if kind == "sync":
        with FeatureStore.connect(url, **options) as store:
            yield store
        return
    loop = asyncio.new_event_loop()

    async def connect() -> AsyncFeatureStore:
        return await AsyncFeatureStore.connect(url, **options)

    try:
        store = loop.run_until_complete(connect())
        try:
            yield Blocking(loop, store)
        finally:  # or a test that fails would have later ones fail by its open sockets
            loop.run_until_complete(store.close())
            loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()


KINDS = ["valkey", "redis7", "unix", "tls", "acl", "cluster", "sentinel"]
