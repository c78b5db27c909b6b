"""Disks that are full or may only be read: one clear line, and what was there still opens."""

import errno
from pathlib import Path
from typing import Any

import pytest

from export import Repository
from export.__main__ import main
from export.errors import RepositoryError
from export.hashing import HashCache

FAILURES = [errno.ENOSPC, errno.EROFS, errno.EACCES]


def _fail(number: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "as the system says it", "somewhere")

    return fail


@pytest.fixture
def repository(tmp_path: Path, make_draft: Any) -> Repository:
    repository = Repository(tmp_path / "repository")
    for payload in (b"one", b"two"):
        repository.publish(make_draft(payload=payload))
    return repository


@pytest.mark.parametrize("number", FAILURES)
def test_publishing_and_pinning_say_so(
    repository: Repository,
    make_draft: Any,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("export.local_store.sync", _fail(number))
    with pytest.raises(RepositoryError, match=r"cannot be written: .* as the system says it"):
        repository.publish(make_draft(payload=b"three"))
    monkeypatch.setattr("export.staging.sync", _fail(number))
    assert main(["pin", str(repository.root), "encoder", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(RepositoryError, match="free some space"), repository.staging("encoder"):
        _fail(number)()
    assert repository.versions("encoder") == ["1", "2"]
    assert repository.open("encoder").path().read_bytes() == b"two"
    assert {path.name for path in (repository.root / "encoder").glob(".staging-*")} == set()


def test_a_file_is_no_repository(tmp_path: Path, make_draft: Any) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RepositoryError, match="expected a folder"):
        Repository(tmp_path / "file").publish(make_draft())


def test_other_errors_inside_are_left_alone(repository: Repository) -> None:
    with pytest.raises(FileNotFoundError), repository.staging("encoder"):
        Path("no/such/file").read_bytes()


@pytest.mark.parametrize("number", FAILURES)
def test_opening_needs_no_memory_of_hashes(
    repository: Repository, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_text", _fail(number))
    cache = HashCache(repository.root / ".hashes" / "another.json")
    monkeypatch.setattr("export.hashing._SETTLED_NS", 0)
    assert cache.digest(repository.open("encoder").path())
    cache.save()
    assert not (repository.root / ".hashes" / "another.json").exists()


def test_a_repository_that_is_not_there_is_no_empty_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("ls", "verify", "gc"):
        assert main([command, str(tmp_path / "mistyped")]) == 2
        assert "there is no such folder" in capsys.readouterr().err


def test_a_folder_that_is_no_model_says_what_one_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    command = ["onnx", str(tmp_path / "empty"), "--out", str(tmp_path / "repo")]
    assert main([*command, "--name", "image_encoder"]) == 2
    assert "expected a Hugging Face folder" in capsys.readouterr().err
