"""Threads that a store runs behind its callers' backs, ended with it.

In: work. Out: threads, which are waited for when the store is closed, within bounds: one that
waits for a server that hangs must not hold up whoever closes.
"""

import threading
import time
from collections.abc import Callable


class Background:
    """The threads of one part of a store. Work ends by itself once it has been told to."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def begin(self, work: Callable[[], None], name: str) -> None:
        """Run work in a thread. Callers hold a lock: they begin one at a time."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        living = self.living()
        thread.start()
        self._threads = [*living, thread]

    def living(self) -> list[threading.Thread]:
        """Those that have not ended yet."""
        return [thread for thread in self._threads if thread.is_alive()]


def join(threads: list[threading.Thread], seconds: float) -> None:
    """Wait until all threads have ended, so long at most; not for the one that calls."""
    until = time.monotonic() + seconds
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(until - time.monotonic(), 0))
