"""Bearer keys with scopes, for HTTP and gRPC alike.

In: a key file of JSON lines `{"name", "key_sha256", "scopes"}` (the keys themselves are never
stored) and the `authorization` header or gRPC metadata. Out: who calls, or an error. The file is
read again when it changes; a broken new version is refused and the old keys go on being used.
Without a key file authentication is off, which only loopback callers may use.
"""

import hashlib
import hmac
import ipaddress
import json
import logging
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from serving.errors import ConfigurationError, ForbiddenError, UnauthenticatedError

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[str, ...] = get_args(Scope)
RECHECK_S = 1.0

logger = logging.getLogger("tessera.auth")


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the key file."""

    name: str
    key_sha256: bytes  # 32 bytes
    scopes: frozenset[str]


ANONYMOUS = Key("anonymous", b"", frozenset(SCOPES))


def new_key() -> tuple[str, str]:
    """A fresh random key and the hexadecimal SHA-256 that a key file holds of it."""
    key = secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


def _parse(line: str, where: str) -> Key:
    expected = 'expected {"name": ..., "key_sha256": "<64 hex digits>", "scopes": ["read", ...]}'
    try:
        entry = json.loads(line)
        name, scopes = str(entry["name"]), frozenset(entry["scopes"])
        digest = bytes.fromhex(entry["key_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{where}: {expected}; correct the line") from error
    if len(digest) != 32 or not scopes or not scopes <= set(SCOPES):
        raise ConfigurationError(f"{where}: {expected}, scopes of {list(SCOPES)}; correct the line")
    return Key(name, digest, scopes)


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file; ConfigurationError names the line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"API key file {path}: cannot be read ({error})") from error
    keys = tuple(_parse(x, f"{path}:{n}") for n, x in enumerate(lines, 1) if x.strip())
    if not keys:
        raise ConfigurationError(f"API key file {path}: holds no key; add one line a key")
    return keys


class Authenticator:
    """Decides who may call; one a replica.

    `path` None: off. `extra`: more keys, of the process that started the application.
    """

    def __init__(self, path: Path | None, extra: Iterable[Key] = ()) -> None:
        self._path = path
        self._extra = tuple(extra)
        self._mark = self._stat()
        self._checked = time.monotonic()
        self._keys = self._extra + (read_keys(path) if path is not None else ())

    @property
    def enabled(self) -> bool:
        return self._path is not None

    def authenticate(self, authorization: str | None) -> Key:
        """The caller's key; UnauthenticatedError without a known bearer key."""
        if self._path is None:
            return ANONYMOUS
        self._reload()
        kind, _, value = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not value.strip():
            raise UnauthenticatedError("expected the header `authorization: Bearer <key>`")
        digest = hashlib.sha256(value.strip().encode()).digest()
        found = None
        for key in self._keys:  # every key is compared, so that time tells nothing
            if hmac.compare_digest(key.key_sha256, digest):
                found = key
        if found is None:
            raise UnauthenticatedError("the bearer key is not known here")
        return found

    def authenticate_peer(self, authorization: str | None, peer: str, scope: Scope) -> Key:
        """A gRPC caller's key, checked for `scope`; `peer` as gRPC names it (`ipv4:1.2.3.4:5`).

        Replicas' gRPC ports listen on all interfaces, so without keys only loopback may call.
        """
        if self._path is None and not is_loopback_peer(peer):
            raise UnauthenticatedError(
                "without an API key file only loopback may call; set TESSERA_API_KEYS_FILE"
            )
        key = self.authenticate(authorization)
        check_scope(key, scope)
        return key

    def _stat(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _reload(self) -> None:
        now = time.monotonic()
        if self._path is None or now - self._checked < RECHECK_S:
            return
        self._checked = now
        mark = self._stat()
        if mark is None or mark == self._mark:
            return
        self._mark = mark
        try:
            self._keys = self._extra + read_keys(self._path)
        except ConfigurationError as error:
            logger.error("key file not reloaded, the former keys hold: %s", error)


def check_scope(key: Key, scope: Scope) -> None:
    """ForbiddenError unless the key has the scope; no scope contains another."""
    if scope not in key.scopes:
        raise ForbiddenError(f"key {key.name!r} has scopes {sorted(key.scopes)}, needs {scope!r}")


def is_loopback_peer(peer: str) -> bool:
    """Whether gRPC's name of a peer is of this machine's loopback or a Unix socket."""
    kind, _, address = peer.partition(":")
    if kind == "unix":
        return True
    host = address.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)
