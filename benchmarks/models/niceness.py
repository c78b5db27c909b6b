"""The generator stands for clients on other machines: what is measured gives way to it.

In: a process that leads a session of its own. Out: that session's group at a lower priority, where
the kernel schedules sessions as groups (sched(7), "The autogroup feature"): there the niceness of
threads counts within their session only, and a generator that is late measures itself.
"""

import time
from pathlib import Path

from .. import report

NICE = 10
# The kernel takes one change each 0.1 s from who has no privileges.
TRIES, PAUSE_S = 20, 0.1


def give_way(pid: int, nice: int = NICE) -> None:
    """Lower the group of `pid`'s session, for whatever is measured alike; no autogroups: nothing.

    It must have started the session already: the caller's own group would be lowered otherwise.
    """
    for _ in range(TRIES):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))
            return
        except BlockingIOError:
            time.sleep(PAUSE_S)
        except (FileNotFoundError, ProcessLookupError):
            return
        except OSError as error:
            report.say(f"what is measured does not give way to the generator: {error}")
            return
