"""Publishing, opening, pinning: what a repository promises, and what it refuses to open."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from export import Bundle, Repository
from export.errors import IntegrityError, ManifestError, NotFoundError


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_publishing_and_opening(repository: Repository, make_draft: Any) -> None:
    published = repository.publish(make_draft())
    opened = repository.open("encoder")
    assert opened == published
    assert opened.manifest.version == "1"
    assert opened.path("model").read_bytes() == b"weights"
    assert opened.file("sub/tokenizer.json").read_bytes() == b"{}"
    assert repository.names() == ["encoder"]
    assert opened.bundle_hash == make_draft().bundle_hash
    with pytest.raises(ManifestError, match="no graph 'encode'"):
        opened.path("encode")
    with pytest.raises(ManifestError, match="lists no file"):
        opened.file("other")


def test_versions_grow_and_are_never_given_twice(repository: Repository, make_draft: Any) -> None:
    for _ in range(11):
        repository.publish(make_draft())
    assert repository.versions("encoder") == [str(number) for number in range(1, 12)]
    newest = repository.root / "encoder" / "11"
    for path in sorted(newest.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    newest.rmdir()
    assert repository.latest("encoder") == "10"
    assert repository.publish(make_draft()).manifest.version == "12"


def test_pin_holds_latest_and_rollback_goes_back(repository: Repository, make_draft: Any) -> None:
    for _ in range(3):
        repository.publish(make_draft())
    repository.pin("encoder", "2")
    repository.publish(make_draft())
    assert repository.open("encoder").manifest.version == "2"
    for four in ("4", 4):
        assert repository.open("encoder", four).manifest.version == "4"
    assert repository.rollback("encoder") == "1"
    assert repository.latest("encoder") == "1"
    with pytest.raises(NotFoundError, match="no version before"):
        repository.rollback("encoder")
    repository.pin("encoder", "latest")
    assert repository.latest("encoder") == "4"
    with pytest.raises(NotFoundError):
        repository.pin("encoder", "9")


def test_what_is_not_there_is_named(repository: Repository, make_draft: Any) -> None:
    assert repository.names() == []
    with pytest.raises(NotFoundError, match="no bundle 'encoder'"):
        repository.open("encoder")
    repository.publish(make_draft())
    with pytest.raises(NotFoundError, match="no version 7"):
        repository.open("encoder", "7")
    with pytest.raises(NotFoundError):
        repository.open("encoder", "../encoder/1")
    with pytest.raises(ManifestError):
        repository.open("../encoder")


def _flip(folder: Path) -> None:
    file = folder / "model.onnx"
    file.chmod(0o644)
    file.write_bytes(b"weightr")


def _link(folder: Path) -> None:
    file = folder / "model.onnx"
    copy = folder.parent.parent / "elsewhere"
    file.rename(copy)
    file.symlink_to(copy)


def _pipe(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")


def _rename(folder: Path) -> None:
    manifest = folder / "manifest.json"
    value = json.loads(manifest.read_bytes())
    manifest.chmod(0o644)
    manifest.write_text(json.dumps({**value, "version": "2"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip, "expected SHA-256"),
        (lambda folder: (folder / "model.onnx").unlink(), "is missing"),
        (lambda folder: (folder / "sub" / "more.py").write_text("x"), "not listed"),
        (lambda folder: (folder / ".hidden").write_text("x"), "not listed"),
        (_link, "symlink"),
        (lambda folder: (folder / "link").symlink_to("/etc"), "symlink"),
        (_pipe, "neither a file nor a folder"),
        (_rename, "says that it is encoder 2"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
    ],
)
def test_a_damaged_bundle_is_refused_and_its_neighbour_opens(
    repository: Repository, make_draft: Any, damage: Any, message: str
) -> None:
    first = repository.publish(make_draft())
    second = repository.publish(make_draft(payload=b"second"))
    repository.open("encoder", "1")
    damage(first.directory)
    with pytest.raises((IntegrityError, ManifestError), match=message):
        repository.open("encoder", "1")
    assert repository.open("encoder") == second


def test_a_version_that_is_a_symlink_is_refused(repository: Repository, make_draft: Any) -> None:
    repository.publish(make_draft())
    (repository.root / "encoder" / "2").symlink_to(repository.root / "encoder" / "1")
    with pytest.raises(IntegrityError, match="folder of its own"):
        repository.open("encoder")
    (repository.root / "other").symlink_to(repository.root / "encoder")
    with pytest.raises(IntegrityError, match="symlink"):
        repository.versions("other")


def test_a_draft_that_changed_is_not_published(repository: Repository, make_draft: Any) -> None:
    draft: Bundle = make_draft()
    (draft.directory / "model.onnx").write_bytes(b"changed")
    with pytest.raises(IntegrityError, match="changed since"):
        repository.publish(draft)
    assert repository.names() == []


def test_a_damaged_pointer_says_what_to_do(repository: Repository, make_draft: Any) -> None:
    repository.publish(make_draft())
    for text in ("{", "[]", '{"pinned": "../1", "highest": 1}'):
        (repository.root / "encoder" / "pointer.json").write_text(text)
        with pytest.raises(ManifestError, match=r"pointer\.json"):
            repository.open("encoder")


def test_concurrent_publishers_all_win_different_versions(
    repository: Repository, make_draft: Any, publish_at_once: Any
) -> None:
    drafts = [make_draft(payload=bytes([number])) for number in range(8)]
    won = publish_at_once(lambda _: Repository(repository.root), drafts)
    payloads = {repository.open("encoder", b.manifest.version).path().read_bytes() for b in won}
    assert len(payloads) == 8


def test_a_stray_folder_hides_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert Repository(tmp_path).names() == []
