"""What names, versions, paths and hashes may look like: nothing here can climb out of a folder."""

import re
from pathlib import PurePosixPath

from export.errors import ManifestError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION = re.compile(r"0|[1-9][0-9]{0,17}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_name(name: str) -> bool:
    """Whether this can name a bundle."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Letters, digits, `.`, `_`, `-`; at most 100; a letter or a digit first."""
    if not is_name(name):
        raise ManifestError(
            f"{name!r} cannot name a bundle: letters, digits, '.', '_' and '-', at most 100"
        )


def is_version(version: str) -> bool:
    """Whether this is a published version: a decimal string from "1" on."""
    return version != "0" and _VERSION.fullmatch(version) is not None


def check_version(version: str) -> None:
    """A decimal string; "0" is a draft."""
    if not _VERSION.fullmatch(version):
        raise ManifestError(f"{version!r} is no version: a decimal string such as '12' is expected")


def check_file_name(name: str) -> None:
    """A relative POSIX path that stays below the folder it is joined to."""
    parts = name.split("/")
    bad = any(part in ("", ".", "..") for part in parts)
    if bad or "\\" in name or "\0" in name or PurePosixPath(name).is_absolute():
        raise ManifestError(f"files: {name!r} is not a plain path below the bundle's folder")


def check_digest(digest: str, name: str) -> None:
    """64 lower-case hex digits."""
    if not _DIGEST.fullmatch(digest):
        raise ManifestError(f"files.{name}: {digest!r} is not a SHA-256 in hex")
