"""Signatures: whoever holds only the repository cannot make a bundle that opens."""

import json
from pathlib import Path
from typing import Any

import pytest

from export import Repository
from export.__main__ import main
from export.errors import SignatureError


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "private", tmp_path / "public"
    assert main(["keys", str(private), str(public)]) == 0
    assert private.stat().st_mode & 0o077 == 0
    return private, public


def test_a_signed_bundle_opens(tmp_path: Path, make_draft: Any, keys: tuple[Path, Path]) -> None:
    private, public = keys
    Repository(tmp_path / "repo", private_key=private).publish(make_draft())
    assert Repository(tmp_path / "repo", public_key=public).open("encoder").manifest.signature
    assert Repository(tmp_path / "repo").open("encoder")  # no key is required
    assert main(["verify", str(tmp_path / "repo"), "--key", str(public)]) == 0


def test_a_key_is_never_written_over(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    before = private.read_bytes(), public.read_bytes()
    new = tmp_path / "new"
    for pair in ((private, new), (new, private), (new, public), (new, new), (new, new / "x")):
        assert main(["keys", *map(str, pair)]) == 2
        assert not new.exists()
    assert (private.read_bytes(), public.read_bytes()) == before


def test_an_unsigned_bundle_does_not(
    tmp_path: Path, make_draft: Any, keys: tuple[Path, Path]
) -> None:
    Repository(tmp_path / "repo").publish(make_draft())
    with pytest.raises(SignatureError, match="not signed"):
        Repository(tmp_path / "repo", public_key=keys[1]).open("encoder")
    assert main(["verify", str(tmp_path / "repo"), "--key", str(keys[1])]) == 1
    with pytest.raises(SignatureError, match="nowhere holds no key"):
        Repository(tmp_path / "repo", public_key=tmp_path / "nowhere").open("encoder")


@pytest.mark.parametrize("field", ["metadata", "precision", "source"])
def test_a_changed_manifest_does_not(
    tmp_path: Path, make_draft: Any, keys: tuple[Path, Path], field: str
) -> None:
    private, public = keys
    bundle = Repository(tmp_path / "repo", private_key=private).publish(make_draft())
    file = bundle.directory / "manifest.json"
    value = json.loads(file.read_bytes())
    changed = {"metadata": {}, "precision": "int8", "source": {"name": "me", "revision": "x"}}
    file.chmod(0o644)
    file.write_text(json.dumps({**value, field: changed[field]}))
    with pytest.raises(SignatureError, match="does not fit"):
        Repository(tmp_path / "repo", public_key=public).open("encoder")


def test_a_signature_cannot_be_moved_to_another_version(
    tmp_path: Path, make_draft: Any, keys: tuple[Path, Path]
) -> None:
    private, public = keys
    repository = Repository(tmp_path / "repo", private_key=private)
    repository.publish(make_draft())
    second = repository.publish(make_draft())
    file = second.directory / "manifest.json"
    value = json.loads(file.read_bytes())
    first = json.loads((repository.root / "encoder" / "1" / "manifest.json").read_bytes())
    file.chmod(0o644)
    file.write_text(json.dumps({**value, "signature": first["signature"]}))
    with pytest.raises(SignatureError, match="does not fit"):
        Repository(tmp_path / "repo", public_key=public).open("encoder")


def test_another_key_and_what_is_no_key(
    tmp_path: Path, make_draft: Any, keys: tuple[Path, Path]
) -> None:
    Repository(tmp_path / "repo", private_key=keys[0]).publish(make_draft())
    other = tmp_path / "other"
    assert main(["keys", str(tmp_path / "more"), str(other)]) == 0
    with pytest.raises(SignatureError, match="another key"):
        Repository(tmp_path / "repo", public_key=other).open("encoder")
    for text in ("", "short", "AAAA", "!" * 44):
        other.write_text(text)
        with pytest.raises(SignatureError, match="key"):
            Repository(tmp_path / "repo", public_key=other).open("encoder")


def test_keys_are_never_overwritten(keys: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(["keys", str(keys[0]), str(tmp_path / "new")]) == 2
