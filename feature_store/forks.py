"""Tells after a fork that this is another process, without a system call per lookup."""

import os

_generation = 0


def generation() -> int:
    """A number that is another one in every forked child."""
    return _generation


def _forked() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_forked)
