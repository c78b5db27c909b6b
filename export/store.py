"""What a repository stands on: a local folder, or an object store behind a URL.

In: where it is. Out: one of two stores with the same promises: a version appears whole or not at
all, two publishers never win the same number, and what is read was verified.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from export.bundle import Bundle
from export.errors import RepositoryError
from export.garbage import Garbage
from export.manifest import Manifest
from export.pointer import Pointer

# `Path` makes `s3:/x` of `s3://x`; both are meant as the same.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)")
DEFAULT_CACHE = Path(".cache") / "tessera" / "bundles"


class BundleStore(Protocol):
    """Bundles by name and version; names and versions given to it were checked."""

    def names(self) -> list[str]:
        """What could be names of bundles, in any order."""

    def versions(self, name: str) -> list[str]:
        """Published versions, oldest first."""

    def pointer(self, name: str) -> Pointer:
        """What is pinned. Raises ManifestError where it is damaged."""

    def point(self, name: str, change: Callable[[Pointer], Pointer]) -> Pointer:
        """Change the pointer as one step, whoever else does so; returns the new one."""

    def read(self, name: str, version: str, *, full: bool) -> Bundle:
        """A verified bundle in a local folder. `full` trusts no remembered hash."""

    def staging(self, name: str) -> AbstractContextManager[Path]:
        """A local scratch folder, removed at the end or after a crash."""

    def add(self, bundle: Bundle, finish: Callable[[int], Manifest]) -> Bundle:
        """Publish as the next version. `finish` gives the manifest for a number."""

    def collect(self, older_than_s: float, *, dry_run: bool) -> list[Garbage]:
        """Remove what publishers that died left there; `dry_run`: only tell what."""


def split_url(root: str | Path) -> tuple[str, str] | None:
    """Protocol and the rest; None for a local path (`file://` URLs are local paths too)."""
    match = _URL.fullmatch(str(root))
    return None if match is None else (match[1].lower(), match[2])


def open_store(root: str | Path, cache: Path | None) -> BundleStore:
    """The store behind a folder, or with a cache behind a URL.

    Raises:
        RepositoryError: a URL with credentials in it, or of a protocol that nothing here reads.
    """
    found = split_url(root)
    if found is not None and cache is not None:
        from export.object_store import ObjectStore

        return ObjectStore(*found, cache)
    from export.local_store import LocalStore

    return LocalStore(local_path(root))


def local_path(root: str | Path) -> Path:
    """The folder that a path or a `file://` URL names. Raises RepositoryError for a host."""
    found = split_url(root)
    if found is None:
        return Path(root)
    if isinstance(root, str) and not root.partition("://")[2].startswith("/"):
        raise RepositoryError(f"{root}: expected file:/// and an absolute path")
    return Path("/") / found[1]
