"""SHA-256 of files, hashed once: a file that was not touched since is not read again.

The cache is a JSON file beside the bundles, {path: [size, mtime, ctime, inode, sha256]}, times in
nanoseconds. It saves time and is no proof: `full` ignores it. Whoever can write it can write the
bundles too; where that matters, sign them.
"""

import errno
import hashlib
import json
import os
import stat
import time
from pathlib import Path
from uuid import uuid4

from export.errors import IntegrityError
from export.progress import counted

# Clocks of file systems tick every few milliseconds: a file younger than this may still change
# without its times changing, so its hash is not remembered.
_SETTLED_NS = 100_000_000
_BLOCK_BYTES = 1 << 18
# What a disk that may only be read, or is full, says.
UNWRITABLE = (
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
)


def digest_file(path: Path) -> str:
    """Hex SHA-256 of a regular file. Raises IntegrityError for a symlink or anything else."""
    descriptor = _open_regular(path)
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        with counted(f"hashing {path.name}", size) as advance:
            while count := file.readinto(block):
                digest.update(block[:count])
                advance(count)
    return digest.hexdigest()


def _open_regular(path: Path) -> int:
    try:
        # O_NONBLOCK: a named pipe must be refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise IntegrityError(f"{path} is a symlink: bundles hold plain files only") from error
        raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IntegrityError(f"{path} is not a plain file")
    return descriptor


class HashCache:
    """Remembered hashes of one bundle's files.

    Args:
        file: where they are kept; None remembers nothing.
        full: hash everything again, and remember that.
    """

    def __init__(self, file: Path | None = None, *, full: bool = False) -> None:
        self._file = file
        self._known = {} if file is None or full else _load(file)
        self._fresh: dict[str, list[int | str]] = {}
        self._changed = False

    def digest(self, path: Path) -> str:
        """Hex SHA-256 of `path`, from memory where size, times and inode are the same."""
        status = path.lstat()
        mark = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self._known.get(str(path))
        if isinstance(known, list) and known[:4] == mark and len(known) == 5:
            self._fresh[str(path)] = known
            return str(known[4])
        started_ns = time.time_ns()
        digest = digest_file(path)
        if started_ns - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
            self._fresh[str(path)] = [*mark, digest]
            self._changed = True
        return digest

    def save(self) -> None:
        """Write what was learned; a disk that may only be read, or is full, is no error."""
        if self._file is None or not self._changed:
            return
        temporary = self._file.with_name(f"{self._file.name}.{uuid4().hex}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._fresh))
            temporary.replace(self._file)
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise


def _load(file: Path) -> dict[str, list[int | str]]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}  # no memory: everything is hashed
    return value if isinstance(value, dict) else {}
