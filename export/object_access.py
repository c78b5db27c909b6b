"""Objects by key in an object store, through fsspec: a few calls, and one kind of error.

In: a protocol and a prefix. Out: bytes and listings. Credentials are the driver's business (for S3
the environment, `~/.aws`, or the machine's role) and never pass through here.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from export.errors import MissingExtraError, NotFoundError, RepositoryError
from export.progress import counted

# Whose drivers pass "only if there is no such object" on to a server that decides it in one step.
EXCLUSIVE = ("s3", "s3a", "memory")


class Objects:
    """The objects below `protocol://prefix`; keys are relative to it.

    Raises:
        RepositoryError: credentials in the URL, or an unknown protocol.
        MissingExtraError: the protocol's driver is not installed.
    """

    def __init__(self, protocol: str, prefix: str) -> None:
        if "@" in prefix.partition("/")[0]:
            # Not repeated here: messages go to logs.
            raise RepositoryError(
                f"the {protocol} URL holds credentials: leave them out and give them to the driver "
                "(for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role)"
            )
        try:
            fsspec: Any = import_module("fsspec")
        except ImportError as error:
            raise MissingExtraError("fsspec") from error
        self.protocol = protocol
        self.url = f"{protocol}://{prefix.rstrip('/')}"
        try:
            self._system: Any = fsspec.filesystem(
                protocol, use_listings_cache=False, skip_instance_cache=True
            )
        except ImportError as error:
            missing = f"a driver for {protocol}:// ({error})"
            raise MissingExtraError(missing, "s3") from error
        except ValueError as error:
            raise RepositoryError(f"{self.url}: {error}") from error

    def get(self, key: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        try:
            data: bytes = self._system.cat_file(self._at(key))
        except FileNotFoundError:
            return None
        except _failures() as error:
            raise self._failed("read", key, error) from error
        return data

    def size(self, key: str) -> int | None:
        """An object's size in bytes; None where there is none."""
        try:
            return int(self._system.info(self._at(key))["size"])
        except FileNotFoundError:
            return None
        except _failures() as error:
            raise self._failed("look up", key, error) from error

    def modified(self, key: str) -> float | None:
        """When an object was last written, in seconds since 1970; None where there is none."""
        try:
            return float(self._system.modified(self._at(key)).timestamp())
        except FileNotFoundError:
            return None
        except _failures() as error:
            raise self._failed("look up", key, error) from error

    def remove(self, key: str) -> None:
        """Remove an object; one that is gone already is no error."""
        try:
            self._system.rm_file(self._at(key))
        except FileNotFoundError:
            return
        except _failures() as error:
            raise self._failed("remove", key, error) from error

    def download(self, key: str, target: Path, size: int) -> None:
        """Copy an object of `size` bytes into a file. Raises NotFoundError where there is none."""
        try:
            with _told(f"downloading {target.name}", size) as callback:
                self._system.get_file(self._at(key), str(target), callback=callback)
        except FileNotFoundError as error:
            raise NotFoundError(f"{self._at(key)} is missing") from error
        except _failures() as error:
            raise self._failed("download", key, error) from error

    def upload(self, source: Path, key: str) -> None:
        """Copy a file into an object, replacing what is there."""
        try:
            with _told(f"uploading {source.name}", source.stat().st_size) as callback:
                self._system.put_file(str(source), self._at(key), callback=callback)
        except _failures() as error:
            raise self._failed("upload", key, error) from error

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless it is there; whether these bytes are now the object.

        A lost answer makes the driver ask again, and then its own first try is in the way: so what
        is there is compared with what was meant.
        """
        try:
            self._system.pipe_file(self._at(key), data, mode="create")
        except _failures() as error:
            found = self.get(key)
            if found is None:
                raise self._failed("write", key, error) from error
            return found == data
        return True

    def children(self, key: str = "") -> list[str]:
        """Names directly below a key, in any order; none where there is nothing."""
        self._system.invalidate_cache()
        try:
            found = self._system.ls(self._at(key), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except _failures() as error:
            raise self._failed("list", key, error) from error
        names = {str(path).rstrip("/").rpartition("/")[2] for path in found}
        return sorted(names - {"", key.rpartition("/")[2]})

    def _at(self, key: str) -> str:
        return f"{self.url}/{key}" if key else self.url

    def _failed(self, what: str, key: str, error: Exception) -> RepositoryError:
        return RepositoryError(f"cannot {what} {self._at(key)}: {type(error).__name__}: {error}")


@contextmanager
def _told(doing: str, size: int) -> Iterator[Any]:
    """A callback for drivers, which tell how much of a file they have moved."""
    callbacks: Any = import_module("fsspec.callbacks")
    with counted(doing, size) as advance:
        moved = 0

        def tell(size: int | None, value: int, **_: object) -> None:  # noqa: ARG001
            nonlocal moved
            advance(value - moved)
            moved = value

        yield callbacks.Callback(hooks={"bar": tell})


def _failures() -> tuple[type[Exception], ...]:
    """What drivers raise: `OSError`, and for S3 also errors before anything was sent."""
    botocore = sys.modules.get("botocore.exceptions")
    return (OSError,) if botocore is None else (OSError, botocore.BotoCoreError)
