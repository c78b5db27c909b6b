"""The hash cache: saves reading, and never hides a change that leaves a trace."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from export import Repository
from export.errors import IntegrityError
from export.hashing import HashCache, digest_file


@pytest.fixture
def settled(tmp_path: Path) -> Path:
    """A file whose times are old enough to be remembered."""
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    deadline = time.monotonic() + 5
    while time.time_ns() - file.stat().st_ctime_ns < 200_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return file


def test_a_known_file_is_not_read_again(tmp_path: Path, settled: Path) -> None:
    memory = tmp_path / "cache.json"
    first = HashCache(memory)
    digest = first.digest(settled)
    first.save()
    # The remembered hash, not the file, is what answers now.
    memory.write_text(memory.read_text().replace(digest, "0" * 64))
    assert HashCache(memory).digest(settled) == "0" * 64
    assert HashCache(memory, full=True).digest(settled) == digest


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    file, memory = tmp_path / "weights", tmp_path / "cache.json"
    file.write_bytes(b"weights")
    cache = HashCache(memory)
    cache.digest(file)
    cache.save()
    assert not memory.exists()


def test_a_change_of_same_size_and_mtime_is_seen(tmp_path: Path, settled: Path) -> None:
    cache = HashCache(tmp_path / "cache.json")
    digest = cache.digest(settled)
    cache.save()
    times = settled.stat()
    settled.write_bytes(b"weightr")
    os.utime(settled, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert HashCache(tmp_path / "cache.json").digest(settled) != digest


def test_damaged_memory_is_forgotten(tmp_path: Path, settled: Path) -> None:
    memory = tmp_path / "cache.json"
    for text in ("{", "[1]", f'{{"{settled}": 7}}', f'{{"{settled}": [1]}}'):
        memory.write_text(text)
        assert HashCache(memory).digest(settled) == digest_file(settled)


def test_full_finds_a_flip_that_the_memory_hides(tmp_path: Path, make_draft: Any) -> None:
    repository = Repository(tmp_path / "repository")
    bundle = repository.publish(make_draft())
    file = bundle.path()
    expected = bundle.manifest.files["model.onnx"].sha256
    file.chmod(0o644)
    file.write_bytes(b"weightr")
    status = file.stat()
    # What a flip on the disk itself looks like: every mark is the same.
    mark = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, expected]
    memory = repository.root / ".hashes" / "encoder" / "1.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(f'{{"{file}": {str(mark).replace(chr(39), chr(34))}}}')
    assert repository.open("encoder") == bundle
    with pytest.raises(IntegrityError, match="expected SHA-256"):
        repository.open("encoder", full=True)
