"""The generator stands for clients on other machines: what is measured gives way to it.

In: a process that leads a session of its own. Out: that session's group at a lower priority, where
the kernel schedules sessions as groups (sched(7), "The autogroup feature"): there the niceness of
threads counts within their session only, and a generator that is late measures itself.
"""

from contextlib import suppress
from pathlib import Path

NICE = 10


def give_way(pid: int) -> None:
    """Lower the group of `pid`'s session, for whatever is measured alike; no autogroups: nothing.

    It must have started the session already: the caller's own group would be lowered otherwise.
    """
    with suppress(FileNotFoundError, ProcessLookupError):
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE))
