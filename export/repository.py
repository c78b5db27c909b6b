"""The repository: a folder `name/version/` of immutable bundles, and which of them serves.

In: drafts. Out: verified bundles. A version appears whole or not at all (it is written beside its
place and renamed into it), never changes, and its number is never given twice. `latest` is the
pinned version where there is one, else the newest.
"""

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from export.bundle import Bundle
from export.errors import IntegrityError, ManifestError, NotFoundError, RepositoryError
from export.hashing import HashCache, digest_file
from export.manifest import MANIFEST_FILE, Manifest, dump
from export.rules import check_name, is_name, is_version
from export.staging import locked, staging, sync, write_atomic

__all__ = ["Bundle", "Repository"]
_CACHE = ".hashes"
_POINTER = "pointer.json"


@dataclass(frozen=True, slots=True)
class _Pointer:
    """`pointer.json` of a name: the pinned version, and the highest number ever given."""

    pinned: str | None = None
    highest: int = 0


class Repository:
    """Bundles below one local folder. Opening needs only read access.

    Args:
        public_key: file of the key that must have signed whatever is opened.
        private_key: file of the key that signs whatever is published.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        public_key: Path | None = None,
        private_key: Path | None = None,
    ) -> None:
        if "://" in str(root):
            raise RepositoryError(f"{root} is not a local folder: copy or mount the bundles first")
        self.root = Path(root)
        self._public_key = public_key
        self._private_key = private_key

    def names(self) -> list[str]:
        """All names that have a version, sorted."""
        if not self.root.is_dir():
            return []
        folders = [path.name for path in self.root.iterdir() if is_name(path.name)]
        return sorted(name for name in folders if self.versions(name))

    def versions(self, name: str) -> list[str]:
        """Published versions, oldest first; none for a name that is not there."""
        check_name(name)
        folder = self.root / name
        if folder.is_symlink():
            raise IntegrityError(f"{folder} is a symlink: refused in a repository")
        if not folder.is_dir():
            return []
        return sorted((path.name for path in folder.iterdir() if is_version(path.name)), key=int)

    def latest(self, name: str) -> str:
        """The version that serves. Raises NotFoundError where there is none."""
        versions = self.versions(name)
        if not versions:
            raise NotFoundError(f"{self.root} has no bundle {name!r}, only {self.names()}")
        return self.pinned(name) or versions[-1]

    def pinned(self, name: str) -> str | None:
        """The version that `latest` is held at, if it is."""
        return self._pointer(name).pinned

    def open(self, name: str, version: str = "latest", *, full: bool = False) -> Bundle:
        """Open one version, every file verified; `full` trusts no remembered hash.

        Raises:
            NotFoundError: no such name or version.
            ManifestError, IntegrityError: the folder must not be loaded.
            SignatureError: a key is required to have signed it, and has not.
        """
        wanted = self.latest(name) if version == "latest" else version
        if wanted not in self.versions(name):
            raise NotFoundError(
                f"{self.root} has no version {wanted} of {name!r}, only {self.versions(name)}"
            )
        cache = HashCache(self.root / _CACHE / name / f"{wanted}.json", full=full)
        bundle = Bundle.read(self.root / name / wanted, cache)
        found = (bundle.manifest.name, bundle.manifest.version)
        if found != (name, wanted):
            raise IntegrityError(f"{bundle.directory} says that it is {found[0]} {found[1]}")
        if self._public_key is not None:
            from export import signature

            signature.verify(bundle.manifest, self._public_key)
        return bundle

    def staging(self, name: str) -> AbstractContextManager[Path]:
        """A scratch folder on the repository's own disk, removed at the end or after a crash."""
        check_name(name)
        return staging(self.root / name)

    def publish(self, bundle: Bundle) -> Bundle:
        """Copy a bundle in as the next version of its name, verifying what is copied.

        Raises:
            IntegrityError: the bundle's files are not what its manifest says (any more).
        """
        name = bundle.manifest.name
        folder = self.root / name
        with self.staging(name) as staged:
            _copy(bundle, staged)
            while True:
                with locked(folder):
                    version = self._next(name)
                    created = datetime.now(UTC).isoformat(timespec="seconds")
                    manifest = self._signed(
                        replace(bundle.manifest, version=str(version), created=created)
                    )
                    _write(staged / MANIFEST_FILE, dump(manifest))
                    sync(staged)
                    if _rename(staged, folder / str(version)):
                        sync(folder)
                        self._point(name, replace(self._pointer(name), highest=version))
                        return Bundle(folder / str(version), manifest)

    def pin(self, name: str, version: str) -> None:
        """Hold `latest` at a version; "latest" lets go of it. Raises NotFoundError."""
        with locked(self._existing(name)):
            if version != "latest" and version not in self.versions(name):
                raise NotFoundError(f"no version {version} of {name!r}: {self.versions(name)}")
            pinned = None if version == "latest" else version
            self._point(name, replace(self._pointer(name), pinned=pinned))

    def rollback(self, name: str) -> str:
        """Pin the version before the one that serves, and return it.

        Raises:
            NotFoundError: no such name, or nothing older to go back to.
        """
        with locked(self._existing(name)):
            current = int(self.latest(name))
            older = [version for version in self.versions(name) if int(version) < current]
            if not older:
                raise NotFoundError(f"{name!r} has no version before {current} to go back to")
            self._point(name, replace(self._pointer(name), pinned=older[-1]))
            return older[-1]

    def _signed(self, manifest: Manifest) -> Manifest:
        if self._private_key is None:
            return replace(manifest, signature=None)
        from export import signature

        return signature.sign(manifest, self._private_key)

    def _existing(self, name: str) -> Path:
        self.latest(name)
        return self.root / name

    def _next(self, name: str) -> int:
        highest = max((int(version) for version in self.versions(name)), default=0)
        return max(highest, self._pointer(name).highest) + 1

    def _pointer(self, name: str) -> _Pointer:
        check_name(name)
        file = self.root / name / _POINTER
        if not file.exists():
            return _Pointer()
        try:
            value = json.loads(file.read_bytes())
            pointer = _Pointer(value["pinned"], int(value["highest"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"{file} is damaged ({error}): remove it to unpin") from error
        if pointer.pinned is not None and not is_version(pointer.pinned):
            raise ManifestError(f"{file} pins {pointer.pinned!r}, which is no version")
        return pointer

    def _point(self, name: str, pointer: _Pointer) -> None:
        value = {"pinned": pointer.pinned, "highest": pointer.highest}
        write_atomic(self.root / name / _POINTER, json.dumps(value).encode())


def _copy(bundle: Bundle, target: Path) -> None:
    for name, entry in bundle.manifest.files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with (bundle.directory / name).open("rb") as source, path.open("xb") as copy:
            while block := source.read(1 << 20):
                copy.write(block)
        path.chmod(0o444)
        sync(path)
        # Of the copy, not of what was read: this is what will be served.
        if digest_file(path) != entry.sha256:
            raise IntegrityError(f"{bundle.directory / name} changed since it was described")


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)
    sync(path)


def _rename(staged: Path, target: Path) -> bool:
    """Whether the place was free: renaming onto a folder that holds files fails."""
    try:
        staged.rename(target)
    except OSError as error:
        if target.exists():
            return False
        raise RepositoryError(f"cannot publish to {target}: {error.strerror}") from error
    return True
