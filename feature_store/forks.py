"""Tells after a fork that this is another process, without a system call per lookup.

In: objects whose locks, threads or sockets are of one process. Out: a call of their `after_fork` in
the child, and a number that is another one in every child.
"""

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Has something that a child must not share with its parent."""

    def after_fork(self) -> None:
        """Called in the child, before anything else runs there."""


_generation = 0
_told: "weakref.WeakSet[Forked]" = weakref.WeakSet()


def generation() -> int:
    """A number that is another one in every forked child."""
    return _generation


def tell(forked: Forked) -> None:
    """Call an object's `after_fork` in every child, as long as it lives."""
    _told.add(forked)


def _forked() -> None:
    global _generation
    _generation += 1
    for forked in list(_told):
        forked.after_fork()


os.register_at_fork(after_in_child=_forked)
