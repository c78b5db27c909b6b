"""The compiled inner loops, if they were built; None where they were not.

In: nothing. Out: `fast`, the module `_fast` (its C sources are beside this), or None. It builds
with any C compiler when the package is installed; everything works without it, only slower. The
functions that use it look `fast` up here at every call, so that the tests can run both ways.
"""

from importlib import import_module
from typing import Protocol, cast

# What `rows` answers, and what became of a job of `talk`.
GOING, DONE, UNUSUAL, CLOSED, LATE, FAILED, SURPLUS = range(7)
_INTERFACE = 3  # as in _fast.h


class Fast(Protocol):
    """What `_fast` has; its sources say what the arguments are."""

    def mget(self, *arguments: object) -> bytes: ...

    def hgets(self, *arguments: object) -> bytes: ...

    def split(self, *arguments: object) -> None: ...

    def rows(self, *arguments: object) -> int: ...

    def talk(self, jobs: list[tuple[object, ...]], deadline: float, /) -> int: ...

    def ask(self, plan: tuple[object, ...], ids: object, deadline: object, /) -> object: ...

    def near(self, *arguments: object) -> int: ...

    def keep(self, *arguments: object) -> None: ...

    def lowest(self, ids: object, /) -> int: ...


def load() -> Fast | None:
    """The module, if it is there and was built from these sources."""
    try:
        module = import_module("feature_store._fast")
    except ImportError:
        return None
    return cast(Fast, module) if getattr(module, "INTERFACE", 1) == _INTERFACE else None


fast: Fast | None = load()
