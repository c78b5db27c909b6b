"""A bundle: an immutable folder, and the manifest that all of it was checked against.

In: a folder. Out: paths to files that are, byte for byte, what was exported.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from export.errors import IntegrityError, ManifestError
from export.hashing import HashCache, digest_file
from export.manifest import (
    MANIFEST_FILE,
    FileEntry,
    Manifest,
    check,
    content_hash,
    parse,
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified folder (or, with version "0", a draft that is about to be published)."""

    directory: Path
    manifest: Manifest

    @classmethod
    def read(cls, directory: Path, cache: HashCache | None = None) -> "Bundle":
        """Open a folder and verify every file in it.

        Raises:
            ManifestError: no manifest, or one that cannot be understood.
            IntegrityError: a file that differs, is missing, is not listed, or is no plain file.
        """
        try:
            present = plain_files(directory)
            if MANIFEST_FILE not in present:
                raise ManifestError(f"{directory} is no bundle: it has no {MANIFEST_FILE}")
            manifest = parse((directory / MANIFEST_FILE).read_bytes())
        except OSError as error:
            raise IntegrityError(f"{directory} cannot be read: {error}") from error
        _verify(directory, manifest, present - {MANIFEST_FILE}, cache or HashCache())
        return cls(directory, manifest)

    @classmethod
    def draft(cls, directory: Path, manifest: Manifest) -> "Bundle":
        """Describe a folder of freshly written files: their hashes go into the manifest."""
        names = sorted(plain_files(directory) - {MANIFEST_FILE})
        files = {
            name: FileEntry(digest_file(directory / name), (directory / name).stat().st_size)
            for name in names
        }
        described = replace(manifest, files=files, version="0", signature=None)
        check(described)
        return cls(directory, described)

    def path(self, graph: str = "model") -> Path:
        """The file of a graph. Raises ManifestError where the bundle has no such graph."""
        if graph not in self.manifest.graphs:
            raise ManifestError(
                f"bundle {self.manifest.name} has no graph {graph!r}, "
                f"only {sorted(self.manifest.graphs)}"
            )
        return self.directory / self.manifest.graphs[graph].file

    def file(self, name: str) -> Path:
        """Any listed file, such as `tokenizer.json`. Raises ManifestError if it is not listed."""
        if name not in self.manifest.files:
            raise ManifestError(f"bundle {self.manifest.name} lists no file {name!r}")
        return self.directory / name

    @property
    def bundle_hash(self) -> str:
        """Hex SHA-256 of what the bundle computes, the same however often it is published."""
        return content_hash(self.manifest)


def plain_files(directory: Path) -> set[str]:
    """Relative POSIX paths of all files below `directory`; anything but files is refused."""
    if directory.is_symlink() or not directory.is_dir():
        raise IntegrityError(f"{directory} is not a folder of its own")
    found: set[str] = set()
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(directory / prefix) as entries:
            for entry in entries:
                name = f"{prefix}{entry.name}"
                if entry.is_symlink():
                    raise IntegrityError(f"{directory / name} is a symlink: refused in a bundle")
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    found.add(name)
                else:
                    raise IntegrityError(f"{directory / name} is neither a file nor a folder")
    return found


def _verify(directory: Path, manifest: Manifest, present: set[str], cache: HashCache) -> None:
    listed = set(manifest.files)
    if missing := sorted(listed - present):
        raise IntegrityError(f"{directory / missing[0]} is missing: publish the bundle again")
    if extra := sorted(present - listed):
        raise IntegrityError(f"{directory / extra[0]} is not listed in {MANIFEST_FILE}: refused")
    for name, entry in manifest.files.items():
        path = directory / name
        size = path.stat().st_size
        if size != entry.bytes:
            raise IntegrityError(f"{path}: expected {entry.bytes} bytes, found {size}")
        digest = cache.digest(path)
        if digest != entry.sha256:
            raise IntegrityError(f"{path}: expected SHA-256 {entry.sha256}, found {digest}")
    cache.save()
