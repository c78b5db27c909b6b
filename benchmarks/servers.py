"""Servers that benchmarks start: the embedded Valkey, Debian's Redis, a Valkey cluster.

In: a kind. Out: ports and process ids. Everything listens on loopback, keeps nothing on disk, and
ends with the context that started it.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis

from feature_store.embedded import EmbeddedValkey, server_binary
from feature_store.ports import free_port

from .errors import BenchmarkError

KINDS = ("valkey", "redis")
_START_S = 30.0


class NoServerError(BenchmarkError):
    """A server that is not installed or does not start."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server on loopback."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """For a store."""
        return f"redis://127.0.0.1:{self.port}"


@contextmanager
def opened(kind: str) -> Iterator[Server]:
    """A server of a kind. Raises NoServerError."""
    if kind == "valkey":
        with EmbeddedValkey() as valkey:
            yield Server(valkey.port, valkey.pid)
        return
    binary = shutil.which("redis-server")
    if binary is None:
        raise NoServerError("redis-server is not installed (Debian: apt-get install redis-server)")
    with _process(binary, free_port()) as server:
        yield server


@contextmanager
def _process(binary: str, port: int, *options: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="server-") as folder:
        common = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(
            [binary, *common, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until(lambda: _answers(port), f"{binary} does not answer on port {port}")
            yield Server(port, process.pid)
        finally:
            process.kill()  # also one that was stopped
            process.wait()


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=1) as client:
            return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False


def until(true: Callable[[], Any], what: str, seconds: float = _START_S) -> None:
    """Wait for something to come true. Raises NoServerError with what it is when it does not."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise NoServerError(f"{what} after {seconds:.0f} s")
        time.sleep(0.01)


@contextmanager
def cluster(replicas: bool, full_coverage: bool = True) -> Iterator[list[Server]]:
    """A Valkey cluster of three masters, then their replicas; a node is missed after a second.

    Without `full_coverage` the other masters serve on when one is lost.
    """
    binary = str(server_binary())
    count = 6 if replicas else 3
    with ExitStack() as stack:
        nodes = []
        for _ in range(count):
            options = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
            options += ["--cluster-node-timeout", "1000"]
            options += ["--cluster-require-full-coverage", "yes" if full_coverage else "no"]
            options += ["--repl-diskless-sync-delay", "0"]
            nodes.append(stack.enter_context(_process(binary, free_port(), *options)))
        clients = [stack.enter_context(redis.Redis(port=node.port)) for node in nodes]
        _join(clients, nodes)
        for i, client in enumerate(clients[3:]):
            master = clients[i].execute_command("CLUSTER", "MYID").decode()
            until(partial(_replicates, client, master), "a replica does not follow")
        if replicas:
            until(
                lambda: all(c.info("replication")["connected_slaves"] for c in clients[:3]),
                "the replicas are not connected",
            )
        until(lambda: all(state(c) == "ok" for c in clients), "the cluster is not ok")
        yield nodes


def _join(clients: list[Any], nodes: list[Server]) -> None:
    for i, client in enumerate(clients[:3]):
        first, last = i * 16384 // 3, (i + 1) * 16384 // 3 - 1
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
    bus = int(clients[0].config_get("cluster-port")["cluster-port"])
    for client in clients[1:]:
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus)
    known = str(len(nodes))
    until(lambda: all(_info(c)["cluster_known_nodes"] == known for c in clients), "nodes are alone")


def _replicates(client: Any, master: str) -> bool:
    try:
        return bool(client.execute_command("CLUSTER", "REPLICATE", master))
    except redis.ResponseError:
        return False


def state(client: Any) -> str:
    """`ok` when every slot has an owner, as this node sees it."""
    return _info(client)["cluster_state"]


def _info(client: Any) -> dict[str, str]:
    answer = client.execute_command("CLUSTER", "INFO")
    if isinstance(answer, dict):
        return {str(k): str(v) for k, v in answer.items()}
    return dict(line.split(":", 1) for line in answer.decode().split("\r\n") if ":" in line)


def cpu_us(client: Any) -> float:
    """CPU that a server has used so far, in microseconds, from its own clock of it."""
    info = client.info("cpu")
    return 1e6 * float(info["used_cpu_user"] + info["used_cpu_sys"])
