"""The revision of a source: a hash of its weights and of what gives them meaning.

Two exports of the same source carry the same revision, on any machine and at any path.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

# What changes the numbers that come out of a model folder; read-me files and the like do not.
_MEANINGFUL = (".safetensors", ".json", ".txt", ".model", ".bin", ".pt")


def file_revision(path: Path) -> str:
    """`sha256:` and the hex digest of one weights file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def folder_revision(folder: Path, files: Iterable[str] = ()) -> str:
    """`sha256:` and one digest of a model folder: names and digests of its files, sorted.

    Args:
        folder: a Hugging Face model folder.
        files: relative names; by default all that can hold weights, settings or a vocabulary.
    """
    names = sorted(files) or sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in _MEANINGFUL
    )
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{file_revision(folder / name)}\n".encode())
    return f"sha256:{digest.hexdigest()}"
