"""Ctrl-C, SIGTERM and a closed terminal as one thing: KeyboardInterrupt, once, then a tidy end."""

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

_Result = TypeVar("_Result")
STOPPING = (signal.SIGINT, signal.SIGTERM)


def _handled() -> tuple[signal.Signals, ...]:
    """A hang-up that `nohup` has set aside stays so."""
    aside = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return STOPPING if aside else (*STOPPING, signal.SIGHUP)


def install() -> None:
    """All of them raise KeyboardInterrupt, also where a shell had SIGINT ignored."""
    for number in _handled():
        signal.signal(number, _interrupt)


def ignore() -> None:
    """From here on they do nothing; children do not inherit that."""
    for number in _handled():
        signal.signal(number, _ignore)


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """`asyncio.run` that a signal ends tidily: tasks are cancelled, then KeyboardInterrupt."""

    async def guarded() -> _Result:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if task is not None:
            for number in _handled():
                loop.add_signal_handler(number, task.cancel)
        return await main

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        install()


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    """A second Ctrl-C changes nothing."""
