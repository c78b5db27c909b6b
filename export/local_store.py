"""A repository in a local folder: `name/version/`, renamed into place.

In: bundles. Out: bundles in folders of their own. A version is written beside its place and
renamed into it, so that it appears whole or not at all; writers take turns by a lock.
"""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from export.bundle import Bundle
from export.copying import copy_file
from export.errors import IntegrityError, RepositoryError
from export.garbage import Garbage, check_age
from export.hashing import HashCache, digest_file
from export.manifest import MANIFEST_FILE, Manifest, dump
from export.pointer import POINTER_FILE, Pointer
from export.pointer import dump as dump_pointer
from export.pointer import parse as parse_pointer
from export.progress import counted
from export.rules import is_name, is_version
from export.staging import abandoned, locked, staging, sync, write_atomic

_CACHE = ".hashes"


class LocalStore:
    """Bundles below one folder. Opening needs only read access."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return [path.name for path in self.root.iterdir() if is_name(path.name)]

    def versions(self, name: str) -> list[str]:
        folder = self.root / name
        if folder.is_symlink():
            raise IntegrityError(f"{folder} is a symlink: refused in a repository")
        if not folder.is_dir():
            return []
        return sorted((path.name for path in folder.iterdir() if is_version(path.name)), key=int)

    def pointer(self, name: str) -> Pointer:
        file = self.root / name / POINTER_FILE
        return parse_pointer(file.read_bytes(), file) if file.exists() else Pointer()

    def point(self, name: str, change: Callable[[Pointer], Pointer]) -> Pointer:
        with locked(self.root / name):
            return self._point(name, change)

    def read(self, name: str, version: str, *, full: bool) -> Bundle:
        cache = HashCache(self.root / _CACHE / name / f"{version}.json", full=full)
        return Bundle.read(self.root / name / version, cache)

    def staging(self, name: str) -> AbstractContextManager[Path]:
        return staging(self.root / name)

    def add(self, bundle: Bundle, finish: Callable[[int], Manifest]) -> Bundle:
        name = bundle.manifest.name
        folder = self.root / name
        with self.staging(name) as staged:
            copy_files(bundle, staged)
            while True:
                with locked(folder):
                    version = next_number(self.versions(name), self.pointer(name))
                    manifest = finish(version)
                    write_manifest(staged, manifest)
                    if rename(staged, folder / str(version)):
                        sync(folder)
                        self._point(name, partial(raised, version))
                        return Bundle(folder / str(version), manifest)

    def collect(self, older_than_s: float, *, dry_run: bool) -> list[Garbage]:
        """Scratch folders that nobody holds; the next publisher would remove them too."""
        check_age(older_than_s)
        found, names = [], self.names()
        with counted("looking into folders", len(names)) as advance:
            for name in names:
                for path, size, age_s in abandoned(self.root / name, older_than_s):
                    if not dry_run:
                        shutil.rmtree(path)
                    found.append(Garbage(f"{name}/{path.name}", size, age_s))
                advance(1)
        return found

    def _point(self, name: str, change: Callable[[Pointer], Pointer]) -> Pointer:
        pointer = change(self.pointer(name))
        write_atomic(self.root / name / POINTER_FILE, dump_pointer(pointer))
        return pointer


def next_number(versions: list[str], pointer: Pointer) -> int:
    """One more than was ever given."""
    return max(pointer.highest, *(int(version) for version in versions), 0) + 1


def raised(version: int, pointer: Pointer) -> Pointer:
    """The pointer after a version was given."""
    return Pointer(pointer.pinned, max(pointer.highest, version))


def copy_files(bundle: Bundle, target: Path) -> None:
    """Copy what a bundle lists into an empty folder, verifying the copy.

    Raises:
        IntegrityError: the files are not what the manifest says (any more).
    """
    for name, entry in bundle.manifest.files.items():
        path = target / name
        copy_file(bundle.directory / name, path)
        path.chmod(0o444)
        sync(path)
        # Of the copy, not of what was read: this is what will be served.
        if digest_file(path) != entry.sha256:
            raise IntegrityError(f"{bundle.directory / name} changed since it was described")


def write_manifest(folder: Path, manifest: Manifest) -> bytes:
    """Write `manifest.json`, replacing an earlier try. Returns its bytes."""
    path, data = folder / MANIFEST_FILE, dump(manifest)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)
    sync(path)
    sync(folder)
    return data


def rename(staged: Path, target: Path) -> bool:
    """Whether the place was free: renaming onto a folder that holds files fails."""
    try:
        staged.rename(target)
    except OSError as error:
        if target.exists():
            return False
        raise RepositoryError(f"cannot publish to {target}: {error.strerror}") from error
    return True
