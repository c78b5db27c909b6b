"""The repository: immutable bundles by name and version, and which of them serves.

In: drafts. Out: verified bundles. A version appears whole or not at all, never changes, and its
number is never given twice. `latest` is the pinned version where there is one, else the newest.
Where the bundles lie (a folder, an object store) is the business of `export.store`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from export.bundle import Bundle
from export.errors import IntegrityError, NotFoundError, RepositoryError
from export.garbage import Garbage
from export.hashing import UNWRITABLE
from export.manifest import Manifest
from export.pointer import Pointer
from export.rules import check_name
from export.store import DEFAULT_CACHE, local_path, open_store, split_url

__all__ = ["Bundle", "Repository"]


class Repository:
    """Bundles below one local folder, or below a URL such as `s3://bucket/models`.

    Args:
        public_key: file of the key that must have signed whatever is opened.
        private_key: file of the key that signs whatever is published.
        cache: where bundles of an object store are kept once they were downloaded and verified;
            by default `~/.cache/tessera/bundles`.

    Attributes:
        root: the folder, or the URL as a string.
        cache: the folder that bundles behind a URL are kept in; None for a folder.

    Raises:
        RepositoryError: a URL that cannot be one of a repository, or a file in a folder's place.
    """

    root: Path | str
    cache: Path | None

    def __init__(
        self,
        root: str | Path,
        *,
        public_key: Path | None = None,
        private_key: Path | None = None,
        cache: Path | None = None,
    ) -> None:
        found = split_url(root)
        if found is None or found[0] in ("file", "local"):
            self.root, self.cache = _folder(local_path(root)), None
        else:
            self.root, self.cache = f"{found[0]}://{found[1]}", cache or Path.home() / DEFAULT_CACHE
        self._store = open_store(root, self.cache)
        self._public_key = public_key
        self._private_key = private_key

    def names(self) -> list[str]:
        """All names that have a version, sorted."""
        return sorted(name for name in self._store.names() if self.versions(name))

    def versions(self, name: str) -> list[str]:
        """Published versions, oldest first; none for a name that is not there."""
        check_name(name)
        return self._store.versions(name)

    def latest(self, name: str) -> str:
        """The version that serves. Raises NotFoundError where there is none."""
        versions = self.versions(name)
        if not versions:
            raise NotFoundError(f"{self.root} has no bundle {name!r}, only {self.names()}")
        return self.pinned(name) or versions[-1]

    def pinned(self, name: str) -> str | None:
        """The version that `latest` is held at, if it is."""
        check_name(name)
        return self._store.pointer(name).pinned

    def open(self, name: str, version: str | int = "latest", *, full: bool = False) -> Bundle:
        """Open one version, every file verified; `full` trusts no remembered hash.

        Raises:
            NotFoundError: no such name or version.
            ManifestError, IntegrityError: the bundle must not be loaded.
            SignatureError: a key is required to have signed it, and has not.
            RepositoryError: the object store does not answer, or refuses.
        """
        wanted = self.latest(name) if version == "latest" else str(version)
        if wanted not in self.versions(name):
            raise NotFoundError(
                f"{self.root} has no version {wanted} of {name!r}, only {self.versions(name)}"
            )
        with nullcontext() if self.cache is None else self._writing():
            bundle = self._store.read(name, wanted, full=full)
        found = (bundle.manifest.name, bundle.manifest.version)
        if found != (name, wanted):
            raise IntegrityError(f"{bundle.directory} says that it is {found[0]} {found[1]}")
        if self._public_key is not None:
            from export import signature

            signature.verify(bundle.manifest, self._public_key)
        return bundle

    def staging(self, name: str) -> AbstractContextManager[Path]:
        """A scratch folder on a local disk, removed at the end or after a crash.

        Raises:
            RepositoryError: the disk is full, or may only be read; also for what happens inside.
        """
        check_name(name)
        return self._staging(name)

    def publish(self, bundle: Bundle) -> Bundle:
        """Copy a bundle in as the next version of its name, verifying what is copied.

        Raises:
            IntegrityError: the bundle's files are not what its manifest says (any more).
            RepositoryError: the repository cannot be written.
        """

        def finish(version: int) -> Manifest:
            created = datetime.now(UTC).isoformat(timespec="microseconds")
            return self._signed(replace(bundle.manifest, version=str(version), created=created))

        with self._writing():
            return self._store.add(bundle, finish)

    def pin(self, name: str, version: str, *, dry_run: bool = False) -> None:
        """Hold `latest` at a version; "latest" lets go of it. Raises NotFoundError."""
        self.latest(name)

        def hold(pointer: Pointer) -> Pointer:
            if version != "latest" and version not in self.versions(name):
                raise NotFoundError(f"no version {version} of {name!r}: {self.versions(name)}")
            return replace(pointer, pinned=None if version == "latest" else version)

        self._point(name, hold, dry_run=dry_run)

    def rollback(self, name: str, *, dry_run: bool = False) -> str:
        """Pin the version before the one that serves, and return it.

        Raises:
            NotFoundError: no such name, or nothing older to go back to.
        """
        self.latest(name)

        def back(pointer: Pointer) -> Pointer:
            versions = self.versions(name)
            current = int(pointer.pinned or versions[-1])
            older = [version for version in versions if int(version) < current]
            if not older:
                raise NotFoundError(f"{name!r} has no version before {current} to go back to")
            return replace(pointer, pinned=older[-1])

        return str(self._point(name, back, dry_run=dry_run).pinned)

    def collect(self, older_than_s: float, *, dry_run: bool = False) -> list[Garbage]:
        """Remove what publishers that died left behind; no version names it.

        Args:
            older_than_s: younger files stay, since a publisher may be at work; an hour at least.
            dry_run: only tell what would be removed.

        Raises:
            ManifestError: a manifest that cannot be read may name anything: nothing was removed.
            RepositoryError: too short an age, or the store refuses.
        """
        with self._writing():
            return self._store.collect(older_than_s, dry_run=dry_run)

    def _point(self, name: str, change: Callable[[Pointer], Pointer], *, dry_run: bool) -> Pointer:
        if dry_run:
            return change(self._store.pointer(name))
        with self._writing():
            return self._store.point(name, change)

    @contextmanager
    def _staging(self, name: str) -> Iterator[Path]:
        with self._writing(), self._store.staging(name) as folder:
            yield folder

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Says of a full or read-only disk what it is; other errors are left alone."""
        try:
            yield
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            kept = "" if self.cache is None else f" (or its cache {self.cache})"
            raise RepositoryError(
                f"{self.root}{kept} cannot be written: {error}: free some space, or name a place "
                "that this user may write; what was there before is as it was"
            ) from error

    def _signed(self, manifest: Manifest) -> Manifest:
        if self._private_key is None:
            return replace(manifest, signature=None)
        from export import signature

        return signature.sign(manifest, self._private_key)


def _folder(root: Path) -> Path:
    """A folder, or a path at which one can be made."""
    try:
        taken = root.exists() and not root.is_dir()
    except OSError as error:  # too long a name, or one that may not be looked at
        raise RepositoryError(f"{root} cannot be a repository: {error.strerror}") from error
    if taken:
        raise RepositoryError(f"{root}: expected a folder, found a file")
    return root
