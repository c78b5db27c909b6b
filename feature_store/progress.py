"""A progress line on stderr for long work: alive on a terminal, one summary line elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY_S = 0.1
_WIDTH = 30


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to call with (done, total)."""
    began = time.monotonic()
    alive = sys.stderr.isatty()
    shown = 0.0
    last = (0, 0)

    def update(done: int, total: int) -> None:
        nonlocal shown, last
        last = (done, total)
        now = time.monotonic()
        if alive and now - shown >= _EVERY_S:
            shown = now
            full = _WIDTH * done // max(total, 1)
            rate = done / max(now - began, 1e-9)
            drawn = "#" * full + "-" * (_WIDTH - full)
            print(f"\r{title} [{drawn}] {done:,}/{total:,} {rate:,.0f}/s", end="", file=sys.stderr)

    try:
        yield update
    finally:
        seconds = time.monotonic() - began
        start = "\r\x1b[2K" if alive else ""
        if last[1] or alive:
            print(f"{start}{title}: {last[0]:,} of {last[1]:,} in {seconds:.1f} s", file=sys.stderr)
