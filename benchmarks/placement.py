"""Where a benchmark's server runs: on a core of its own, or on the core of whoever asks it.

In: the server's process id. Out: a context in which server and caller stay where they were put.

Left to itself the kernel chooses one or the other, and changes its mind: waking a core that sleeps
costs some 30 us of CPU a side on a virtual machine, whoever asks, so runs come in two kinds that
must not be compared. A server on a core of its own is nearer to production, where it is on another
machine: nobody's reply waits for the caller to leave the core, and both sides sleep and are woken.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

APART, TOGETHER = "a core of its own", "the caller's core"
ANYWHERE = "where the kernel likes"


def known() -> tuple[str, ...]:
    """The placements that this machine has, the one to be judged by first."""
    if not hasattr(os, "sched_setaffinity"):
        return (ANYWHERE,)
    return (APART, TOGETHER) if len(os.sched_getaffinity(0)) > 1 else (TOGETHER,)


@contextmanager
def placed(pid: int, where: str) -> Iterator[None]:
    """Keep a server's threads, and the thread that calls this, in a placement of `known`."""
    if where == ANYWHERE:
        yield
        return
    cores = os.sched_getaffinity(0)
    own, *others = sorted(cores)
    try:
        _keep(pid, {others[0] if where == APART else own})
        os.sched_setaffinity(0, {own})
        yield
    finally:
        os.sched_setaffinity(0, cores)
        _keep(pid, cores)


def _keep(pid: int, cores: set[int]) -> None:
    """Keep all threads of a process on some cores; those that end meanwhile need nothing."""
    tasks = Path(f"/proc/{pid}/task")
    for task in tasks.iterdir() if tasks.exists() else ():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            continue
