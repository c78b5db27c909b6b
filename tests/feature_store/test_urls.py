"""Every form of URL that address.py documents reaches a real server that wants just that."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from conftest_tools import REDIS, answers, make_certificates, need, opened, server, until

from feature_store import Status
from feature_store.ports import free_port

IDS = np.arange(1, 51)
CODES = np.arange(300, dtype=np.uint16).reshape(50, 6)
Form = Callable[[Path, int, ExitStack], str]


@contextmanager
def url_of(form: Form, folder: Path) -> Iterator[str]:
    need("redis-server")
    need("openssl")
    make_certificates(folder)
    with ExitStack() as stack:
        yield form(folder, free_port(), stack)


def _start(stack: ExitStack, port: int, *options: str, **login: str) -> None:
    ready = ["--port", str(port), "--bind", "127.0.0.1", *options]
    stack.enter_context(server(REDIS, *ready))
    until(lambda: answers(port, **login))


def _tls(folder: Path, port: int, clients: str = "no") -> list[str]:
    return [
        *("--tls-port", str(port), "--tls-auth-clients", clients),
        *("--tls-cert-file", str(folder / "cert.pem"), "--tls-key-file", str(folder / "key.pem")),
        *("--tls-ca-cert-file", str(folder / "cert.pem")),
    ]


def _sentinel(stack: ExitStack, folder: Path, port: int, lines: str) -> int:
    """A sentinel of a master called `main`."""
    watch = free_port()
    config = folder / "sentinel.conf"
    monitor = f"bind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port} 1\n"
    config.write_text(lines.format(watch=watch) + monitor)
    stack.enter_context(server(REDIS, str(config), "--sentinel", plain=True))
    return watch


def password(folder: Path, port: int, stack: ExitStack) -> str:
    _start(stack, port, "--requirepass", "a secret/", password="a secret/")
    return f"redis://:a%20secret%2F@127.0.0.1:{port}"


def database(folder: Path, port: int, stack: ExitStack) -> str:
    _start(stack, port)
    return f"redis://localhost:{port}/3"


def unix(folder: Path, port: int, stack: ExitStack) -> str:
    path = folder / "socket"
    _start(stack, port, "--unixsocket", str(path), "--requirepass", "secret", password="secret")
    return f"unix://:secret@{path}?db=2"


def unverified(folder: Path, port: int, stack: ExitStack) -> str:
    secure = free_port()
    _start(stack, port, *_tls(folder, secure))
    return f"rediss://127.0.0.1:{secure}?ssl_cert_reqs=none"


def both_sides(folder: Path, port: int, stack: ExitStack) -> str:
    """The server wants a certificate as well."""
    secure = free_port()
    _start(stack, port, *_tls(folder, secure, "yes"))
    files = f"ssl_ca_certs={folder}/cert.pem&ssl_certfile={folder}/cert.pem"
    return f"rediss://localhost:{secure}/1?{files}&ssl_keyfile={folder}/key.pem"


def _whole_cluster(port: int, **login: Any) -> None:
    with redis.Redis(port=port, **login) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: client.cluster("INFO")["cluster_state"] == "ok")


def cluster(folder: Path, port: int, stack: ExitStack) -> str:
    members = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    _start(stack, port, *members, "--requirepass", "secret", password="secret")
    _whole_cluster(port, password="secret")
    return f"redis+cluster://default:secret@localhost:{port},127.0.0.1:{port}"


def cluster_tls(folder: Path, port: int, stack: ExitStack) -> str:
    secure = free_port()
    members = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    _start(stack, port, *members, *_tls(folder, secure), "--tls-cluster", "yes")
    _whole_cluster(port)
    return f"rediss+cluster://127.0.0.1:{secure}?ssl_ca_certs={folder}/cert.pem"


def sentinel(folder: Path, port: int, stack: ExitStack) -> str:
    _start(stack, port, "--requirepass", "secret", password="secret")
    watch = _sentinel(stack, folder, port, "port {watch}\n")
    until(lambda: answers(watch))
    return f"redis+sentinel://:secret@127.0.0.1:{watch},localhost:{watch}/main/2"


def sentinel_tls(folder: Path, port: int, stack: ExitStack) -> str:
    secure = free_port()
    _start(stack, port, *_tls(folder, secure))
    files = f"tls-cert-file {folder}/cert.pem\ntls-key-file {folder}/key.pem\n"
    files += f"tls-ca-cert-file {folder}/cert.pem\ntls-auth-clients no\ntls-replication yes\n"
    watch = _sentinel(stack, folder, secure, "port 0\ntls-port {watch}\n" + files)
    until(lambda: answers(watch, ssl=True, ssl_ca_certs=str(folder / "cert.pem")))
    return f"rediss+sentinel://127.0.0.1:{watch}/main?ssl_ca_certs={folder}/cert.pem"


FORMS = [
    *(password, database, unix, unverified, both_sides),
    *(cluster, cluster_tls, sentinel, sentinel_tls),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_documented_url_reaches_its_server(form: Form, tmp_path: Path) -> None:
    """Sync and async, and the channel of a near cache, which logs in for itself."""
    with url_of(form, tmp_path) as url, opened("sync", url) as writer:
        writer.write(IDS, CODES)
        for driver in ("sync", "async"):
            with opened(driver, url, near_cache_bytes=1 << 16) as store:

                def warm(store: Any = store) -> bool:
                    found = store.lookup(IDS)
                    assert (found.status == Status.HIT).all()
                    np.testing.assert_array_equal(found.codes, CODES)
                    return bool(store.counters.get("near hits", 0))

                def gone(store: Any = store) -> bool:
                    return bool(store.lookup([7]).status[0] == Status.BLOCKED)

                until(warm)
                writer.block([7], "gone")
                until(gone)
                writer.unblock([7])


def test_a_database_is_a_store_of_its_own(tmp_path: Path) -> None:
    with url_of(database, tmp_path) as url, opened("sync", url) as third:
        third.write(IDS, CODES)
        with opened("sync", url.removesuffix("/3")) as first:
            assert first.versions() == []
            assert (first.lookup(IDS).status == Status.MISS).all()
