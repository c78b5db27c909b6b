"""Bearer keys: who may call, with which scopes, and what a changed file does."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from serving import auth
from serving.auth import Authenticator, Key, check_scope, is_loopback_peer, new_key, read_keys
from serving.errors import ConfigurationError, ForbiddenError, UnauthenticatedError


def line(name: str, key: str, *scopes: str) -> str:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return json.dumps({"name": name, "key_sha256": digest, "scopes": scopes}) + "\n"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.jsonl"
    path.write_text(line("ranker", "one", "read") + "\n" + line("ops", "two", "admin", "read"))
    return path


def test_a_known_key_is_recognised(key_file: Path) -> None:
    key = Authenticator(key_file).authenticate("Bearer two")
    assert (key.name, key.scopes) == ("ops", {"admin", "read"})


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic one", "one", "Bearer x"])
def test_anything_else_is_refused(key_file: Path, header: str | None) -> None:
    with pytest.raises(UnauthenticatedError):
        Authenticator(key_file).authenticate(header)


def test_scopes_do_not_contain_each_other(key_file: Path) -> None:
    key = Authenticator(key_file).authenticate("bearer two")
    check_scope(key, "admin")
    with pytest.raises(ForbiddenError, match="'write'"):
        check_scope(key, "write")


def test_a_changed_file_is_read_again(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "RECHECK_S", 0.0)
    keys = Authenticator(key_file)
    key_file.write_text(line("other", "three", "read"))
    os.utime(key_file, (1, 1))
    assert keys.authenticate("Bearer three").name == "other"
    with pytest.raises(UnauthenticatedError):
        keys.authenticate("Bearer one")


def test_a_broken_or_removed_file_leaves_the_former_keys(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "RECHECK_S", 0.0)
    keys = Authenticator(key_file)
    key_file.write_text("{")
    os.utime(key_file, (1, 1))
    assert keys.authenticate("Bearer one").name == "ranker"
    key_file.unlink()
    assert keys.authenticate("Bearer one").name == "ranker"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"name": "x", "key_sha256": "zz", "scopes": ["read"]}',
        '{"name": "x", "key_sha256": "' + "0" * 62 + '", "scopes": ["read"]}',
        '{"name": "x", "key_sha256": "' + "0" * 64 + '", "scopes": []}',
        '{"name": "x", "key_sha256": "' + "0" * 64 + '", "scopes": ["root"]}',
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"keys\.jsonl"):
        read_keys(path)


def test_extra_keys_count_beside_the_file(key_file: Path) -> None:
    value, digest = new_key()
    extra = Key("up", bytes.fromhex(digest), frozenset({"write"}))
    assert Authenticator(key_file, [extra]).authenticate(f"Bearer {value}") == extra


def test_without_a_file_only_loopback_peers_may_call() -> None:
    keys = Authenticator(None)
    assert keys.authenticate_peer(None, "ipv4:127.0.0.1:5", "admin") is auth.ANONYMOUS
    with pytest.raises(UnauthenticatedError, match="TESSERA_API_KEYS_FILE"):
        keys.authenticate_peer(None, "ipv4:10.0.0.7:5", "read")


def test_with_a_file_peers_need_a_key_wherever_they_are(key_file: Path) -> None:
    keys = Authenticator(key_file)
    assert keys.authenticate_peer("Bearer one", "ipv4:10.0.0.7:5", "read").name == "ranker"
    with pytest.raises(UnauthenticatedError):
        keys.authenticate_peer(None, "ipv4:127.0.0.1:5", "read")
    with pytest.raises(ForbiddenError):
        keys.authenticate_peer("Bearer one", "ipv4:127.0.0.1:5", "write")


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:80", True),
        ("ipv4:127.8.0.1:80", True),
        ("ipv6:[::1]:80", True),
        ("ipv6:%5B::1%5D:80", True),
        ("ipv6:[::ffff:127.0.0.1]:80", True),
        ("ipv6:[::ffff:10.0.0.1]:80", False),
        ("unix:/tmp/x", True),
        ("ipv4:10.1.2.3:80", False),
        ("ipv6:[fe80::1]:80", False),
        ("", False),
        ("dns:localhost", False),
    ],
)
def test_peers_of_this_machine(peer: str, local: bool) -> None:
    assert is_loopback_peer(peer) is local
