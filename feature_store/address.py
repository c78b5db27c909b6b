"""From a URL to everything needed to open connections.

In: redis://, rediss://, unix://, redis+cluster://, redis+sentinel:// (and their TLS forms
rediss+cluster://, rediss+sentinel://). Out: an `Address`. The grammar of plain URLs is
redis-py's; redis+cluster and redis+sentinel take several hosts, `host:port,host:port`, and
sentinel's path is the master's name: redis+sentinel://:secret@h1:26379,h2:26379/mymaster.
"""

import ssl
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from redis.connection import parse_url

from .errors import AddressError, UnavailableError
from .ops import Node, checked
from .wire import Reply, command

Kind = Literal["single", "cluster", "sentinel"]
SCHEMES = (
    "redis://, rediss://, unix://, redis+cluster://, rediss+cluster://, redis+sentinel:// "
    "and rediss+sentinel://"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where and how to connect. `seeds` are servers, cluster members, or sentinels."""

    kind: Kind
    seeds: tuple[Node, ...]
    shown: str  # the URL without its password
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: ssl.SSLContext | None = None
    master: str = ""

    def handshake(self, node: Node) -> tuple[bytes, int]:
        """Commands that open a connection, and how many they are. `admitted` reads the replies."""
        parts: list[bytes] = []
        if self.password is not None and not (self.kind == "sentinel" and node in self.seeds):
            login = (self.user, self.password) if self.user else (self.password,)
            parts.append(command("AUTH", *login))
        if self.database and not (self.kind == "sentinel" and node in self.seeds):
            parts.append(command("SELECT", self.database))
        if self._named_by_sentinels(node):
            parts.append(command("ROLE"))
        return b"".join(parts), len(parts)

    def admitted(self, replies: list[Reply], node: Node) -> None:
        """Raises what a server refused; UnavailableError where it is no master any more.

        A master that was replaced while it lived goes on answering, as a replica.
        """
        role = replies[-1] if self._named_by_sentinels(node) else None
        checked(replies if role is None else replies[:-1], node)
        if isinstance(role, list) and role[:1] == [b"slave"]:
            raise UnavailableError(f"{node} is a replica now; the sentinels name another master")

    def _named_by_sentinels(self, node: Node) -> bool:
        return self.kind == "sentinel" and node not in self.seeds


def parse(url: str) -> Address:
    """Read a URL. Raises AddressError with the schemes that are known."""
    if not isinstance(url, str) or "://" not in url:
        raise AddressError(f"expected a URL of {SCHEMES}; found no scheme in it")
    scheme, rest = url.split("://", 1)
    base, _, kind = scheme.partition("+")
    if base not in ("redis", "rediss", "unix") or kind not in ("", "cluster", "sentinel"):
        raise AddressError(f"unknown scheme {scheme!r}; known are {SCHEMES}")
    if base == "unix" and kind:
        raise AddressError(f"unknown scheme {scheme!r}; known are {SCHEMES}")
    try:
        if kind:
            return _many(base, kind, rest)
        return _single(base, url)
    except AddressError:
        raise
    except (ValueError, OSError, ssl.SSLError) as error:
        # The cause may quote a part of the password.
        raise AddressError(
            f"cannot read the URL {_hide(url)}: expected {SCHEMES}, special characters of user "
            f"and password percent-encoded ({type(error).__name__})"
        ) from None


def _hide(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rsplit('@', 1)[-1].split('?')[0]}"


def _single(base: str, url: str) -> Address:
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    if base == "unix":
        node = Node(str(options.get("path", "")), 0)
        if not node.host:
            raise AddressError(f"a unix:// URL needs the socket's path; found {_hide(url)}")
    else:
        node = Node(str(options.get("host", "localhost")), int(options.get("port", 6379)))
        _check_database(urlsplit(url).path.strip("/"), url)
    query = {key: values[-1] for key, values in parse_qs(urlsplit(url).query).items()}
    return Address(
        "single",
        (node,),
        _hide(url),
        options.get("username"),
        options.get("password"),
        int(options.get("db", 0) or 0),
        _context(query) if base == "rediss" else None,
    )


def _many(base: str, kind: str, rest: str) -> Address:
    split = urlsplit(f"redis://{rest}")
    login, _, hosts = split.netloc.rpartition("@")
    user, _, password = login.partition(":")
    default = 26379 if kind == "sentinel" else 6379
    seeds = tuple(_node(text, default) for text in hosts.split(",") if text)
    if not seeds:
        raise AddressError(f"the URL names no host: {_hide(f'{base}+{kind}://{rest}')}")
    path = [unquote(part) for part in split.path.split("/") if part]
    if kind == "sentinel" and not path:
        raise AddressError(
            "a sentinel URL names the master: redis+sentinel://host:26379/mymaster[/database]"
        )
    query = {key: values[-1] for key, values in parse_qs(split.query).items()}
    return Address(
        "cluster" if kind == "cluster" else "sentinel",
        seeds,
        _hide(f"{base}+{kind}://{rest}"),
        unquote(user) or None,
        unquote(password) if password else None,
        int(path[1]) if kind == "sentinel" and len(path) > 1 else 0,
        _context(query) if base == "rediss" else None,
        path[0] if kind == "sentinel" else "",
    )


def _check_database(path: str, url: str) -> None:
    """redis-py takes database 0 for what is no number."""
    if path and not (path.isascii() and path.isdigit()):
        raise AddressError(
            f"expected the number of a database after the host in {_hide(url)}; special characters "
            "of user and password must be percent-encoded"
        )


def _node(text: str, default: int) -> Node:
    split = urlsplit(f"//{text}")
    return Node(split.hostname or "localhost", split.port or default)


def _context(query: dict[str, str]) -> ssl.SSLContext:
    """TLS as redis-py names it: ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs,
    ssl_check_hostname."""
    context = ssl.create_default_context(cafile=query.get("ssl_ca_certs"))
    if "ssl_certfile" in query:
        context.load_cert_chain(query["ssl_certfile"], query.get("ssl_keyfile"))
    if query.get("ssl_check_hostname", "true").lower() in ("false", "0", "no"):
        context.check_hostname = False
    if query.get("ssl_cert_reqs", "required") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
