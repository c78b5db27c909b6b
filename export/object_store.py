"""A repository in an object store: content-addressed files, and a manifest that is written last.

    PREFIX/.files/<sha256>               every file of every bundle, once
    PREFIX/<name>/<version>/manifest.json
    PREFIX/<name>/.pointer/<number>.json the newest record says what is pinned

There is no rename here, but one step that only one writer can win: creating an object that is not
there yet (S3's `If-None-Match: *`). The manifest is created so, after all of its files: before it
there is no version, after it there is a whole one. Files never overwrite each other's, since their
names are their hashes. The pointer is a log of records, each created so too.
"""

import hashlib
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

from export.bundle import Bundle
from export.errors import IntegrityError, ManifestError, NotFoundError, RepositoryError
from export.garbage import Garbage, collect
from export.hashing import HashCache
from export.local_store import copy_files, next_number, raised, rename, write_manifest
from export.manifest import MANIFEST_FILE, FileEntry, Manifest, parse
from export.object_access import EXCLUSIVE, Objects
from export.pointer import Pointer
from export.pointer import dump as dump_pointer
from export.pointer import parse as parse_pointer
from export.progress import counted
from export.rules import is_name, is_version
from export.staging import staging

_FILES = ".files"
_POINTERS = ".pointer"
_RECORD = re.compile(r"[0-9]{12}\.json")
_PROBE = ".exclusive"
# A file that nothing names is used again when it is younger, such as after a publisher's death;
# older ones are sent again: they may be collected (`export.garbage`) before the manifest is there.
REUSED_S = 900.0
# How many other writers one may lose to before something else must be wrong.
_MOST_LOST = 1000


class ObjectStore:
    """Bundles below a URL, kept in `cache` once they were downloaded and verified."""

    def __init__(self, protocol: str, prefix: str, cache: Path) -> None:
        self._objects = Objects(protocol, prefix)
        self._cache = cache
        self._is_exclusive = False

    def names(self) -> list[str]:
        return [name for name in self._objects.children() if is_name(name)]

    def versions(self, name: str) -> list[str]:
        return sorted((item for item in self._objects.children(name) if is_version(item)), key=int)

    def pointer(self, name: str) -> Pointer:
        return self._pointer(name)[1]

    def point(self, name: str, change: Callable[[Pointer], Pointer]) -> Pointer:
        self._check_exclusive()
        for _ in range(_MOST_LOST):
            number, pointer = self._pointer(name)
            changed = change(pointer)
            key = f"{name}/{_POINTERS}/{number + 1:012d}.json"
            # Equal bytes by two writers mean the same: neither has lost anything.
            if changed == pointer or self._objects.create(key, dump_pointer(changed)):
                return changed
        raise RepositoryError(f"{self._objects.url}/{name}: its pointer changes all the time")

    def read(self, name: str, version: str, *, full: bool) -> Bundle:
        key = f"{name}/{version}/{MANIFEST_FILE}"
        data = self._objects.get(key)
        if data is None:
            raise ManifestError(f"{self._objects.url}/{key} is missing: this is no version")
        place = self._place(data)
        if place.exists() and not full:
            try:
                return self._open(place)
            except (IntegrityError, ManifestError):
                self._discard(place)  # the copy was damaged: the store has another
        manifest = parse(data)
        with staging(self._cache) as staged:
            for file, entry in manifest.files.items():
                self._download(file, entry, staged)
            (staged / MANIFEST_FILE).write_bytes(data)
            Bundle.read(staged)
            if full:
                self._discard(place)
            rename(staged, place)  # where another opener was first, its copy is the same
        return self._open(place)

    def staging(self, name: str) -> AbstractContextManager[Path]:  # noqa: ARG002
        return staging(self._cache)

    def add(self, bundle: Bundle, finish: Callable[[int], Manifest]) -> Bundle:
        self._check_exclusive()
        name = bundle.manifest.name
        with staging(self._cache) as staged:
            copy_files(bundle, staged)
            known = self._newest_files(name)
            for file, entry in bundle.manifest.files.items():
                if entry.sha256 not in known and not self._is_fresh(entry):
                    self._objects.upload(staged / file, f"{_FILES}/{entry.sha256}")
            for _ in range(_MOST_LOST):
                version = next_number(self.versions(name), self.pointer(name))
                manifest = finish(version)
                data = write_manifest(staged, manifest)
                if self._objects.create(f"{name}/{version}/{MANIFEST_FILE}", data):
                    self.point(name, partial(raised, version))
                    place = self._place(data)
                    rename(staged, place)
                    return Bundle(place, manifest)
        raise RepositoryError(f"{self._objects.url}/{name}: its versions change all the time")

    def collect(self, older_than_s: float, *, dry_run: bool) -> list[Garbage]:
        """Files of publishers that died. Raises as `export.garbage.collect`."""

        def look(digest: str) -> tuple[int, float] | None:
            key = f"{_FILES}/{digest}"
            size, modified = self._objects.size(key), self._objects.modified(key)
            return None if size is None or modified is None else (size, modified)

        def remove(digest: str) -> None:
            self._objects.remove(f"{_FILES}/{digest}")

        listed = self._objects.children(_FILES)
        return collect(listed, self._named, look, None if dry_run else remove, older_than_s)

    def _named(self) -> set[str]:
        """The files of every version there is. Raises ManifestError for one that is damaged."""
        published = [(name, version) for name in self.names() for version in self.versions(name)]
        found: set[str] = set()
        with counted("reading manifests", len(published)) as advance:
            for name, version in published:
                found |= {entry.sha256 for entry in self._manifest(name, version).files.values()}
                advance(1)
        return found

    def _manifest(self, name: str, version: str) -> Manifest:
        key = f"{name}/{version}/{MANIFEST_FILE}"
        try:
            return parse(self._objects.get(key) or b"")
        except ManifestError as error:
            raise ManifestError(f"{self._objects.url}/{key}: {error}; nothing removed") from error

    def _newest_files(self, name: str) -> set[str]:
        """What the newest version names: it is there, and nobody collects it."""
        versions = self.versions(name)
        try:
            newest = self._manifest(name, versions[-1]).files.values() if versions else ()
        except ManifestError:
            return set()  # it opens nowhere; it shall not keep others from being published
        there = (entry for entry in newest if self._size(entry) == entry.bytes)
        return {entry.sha256 for entry in there}

    def _is_fresh(self, entry: FileEntry) -> bool:
        """Whether a file is there and too young to be collected while this version is published."""
        modified = self._objects.modified(f"{_FILES}/{entry.sha256}")
        is_young = modified is not None and time.time() - modified < REUSED_S
        return is_young and self._size(entry) == entry.bytes

    def _size(self, entry: FileEntry) -> int | None:
        return self._objects.size(f"{_FILES}/{entry.sha256}")

    def _pointer(self, name: str) -> tuple[int, Pointer]:
        """The newest record's number and content; 0 where there is none."""
        items = self._objects.children(f"{name}/{_POINTERS}")
        records = [item for item in items if _RECORD.fullmatch(item)]
        if not records:
            return 0, Pointer()
        key = f"{name}/{_POINTERS}/{max(records)}"
        data = self._objects.get(key) or b""
        return int(max(records)[:12]), parse_pointer(data, f"{self._objects.url}/{key}")

    def _download(self, file: str, entry: FileEntry, target: Path) -> None:
        path = target / file
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._objects.download(f"{_FILES}/{entry.sha256}", path, entry.bytes)
        except NotFoundError as error:
            raise IntegrityError(f"{file}: {error}: publish the bundle again") from error
        path.chmod(0o444)

    def _place(self, manifest: bytes) -> Path:
        return self._cache / hashlib.sha256(manifest).hexdigest()

    def _open(self, place: Path) -> Bundle:
        return Bundle.read(place, HashCache(self._cache / ".hashes" / f"{place.name}.json"))

    def _discard(self, place: Path) -> None:
        """Move a folder away in one step; sessions that have its files open keep them."""
        with staging(self._cache) as staged, suppress(FileNotFoundError):
            place.rename(staged / "old")

    def _check_exclusive(self) -> None:
        """Refuse to write where two writers could both win."""
        if self._is_exclusive:
            return
        protocol = self._objects.protocol
        if protocol not in EXCLUSIVE:
            raise RepositoryError(
                f"{self._objects.url}: bundles can be opened from here, but not published: only "
                f"{', '.join(EXCLUSIVE)} are known to create an object for one writer alone"
            )
        # Other bytes each time: creating the second must fail.
        if self._objects.create(_PROBE, b"1") and self._objects.create(_PROBE, b"2"):
            raise RepositoryError(
                f"{self._objects.url}: the server overwrites objects although it was asked to "
                "create them (If-None-Match: *): two publishers could both win a version; use a "
                "server that supports conditional writes"
            )
        self._is_exclusive = True
