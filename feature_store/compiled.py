"""The compiled inner loops, if they were built; None where they were not.

In: nothing. Out: `fast`, the module `_fast` (see _fast.c), or None. It builds with any C compiler
when the package is installed; everything works without it, only slower. The functions that use
it look `fast` up here at every call, so that the tests can run both ways.
"""

from importlib import import_module
from typing import Protocol, cast

INCOMPLETE = -1  # what `rows` answers while bytes are missing


class Fast(Protocol):
    """What `_fast` has; its source says what the arguments are."""

    def mget(self, ids: object, prefix: bytes, tags: bytes, tail: bytes, /) -> bytes: ...

    def rows(self, *arguments: object) -> int: ...

    def near(self, *arguments: object) -> int: ...

    def keep(self, *arguments: object) -> None: ...


def load() -> Fast | None:
    """The module, if it is there."""
    try:
        return cast(Fast, import_module("feature_store._fast"))
    except ImportError:
        return None


fast: Fast | None = load()
