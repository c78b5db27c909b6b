"""Ctrl-C and SIGTERM as one thing: KeyboardInterrupt, once; then the shutdown is let finish."""

import signal
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM)


def install() -> None:
    """Both signals raise KeyboardInterrupt, also where a shell had SIGINT ignored."""
    for number in HANDLED:
        signal.signal(number, _interrupt)


def ignore() -> None:
    """From here on both do nothing; children do not inherit that."""
    for number in HANDLED:
        signal.signal(number, _ignore)


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    """A second Ctrl-C changes nothing."""
