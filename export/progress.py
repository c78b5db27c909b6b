"""What an export is doing now: live lines on a terminal, one summary line elsewhere (stderr).

In: steps in words, and how much of what takes long is done. Out: nothing but what is shown. Whoever
counts (hashing, uploads, parity) does not know whether anyone looks: where no command shows steps,
as when serving opens a bundle, counting does nothing and imports nothing.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Advance = Callable[[int], None]
_shown: ContextVar["Progress | None"] = ContextVar("shown", default=None)


@contextmanager
def steps(title: str) -> Iterator[Callable[[str, str], None]]:
    """Show steps of unknown length: call with a subject and what is being done with it.

    What is printed meanwhile would fall between the live lines: print it afterwards.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    started = time.monotonic()
    count = 0
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    # What goes to stdout stays there, for pipes.
    quiet = not console.is_terminal
    with Progress(*columns, console=console, disable=quiet, redirect_stdout=False) as bar:
        task = bar.add_task(title, total=None)

        def step(subject: str, doing: str) -> None:
            nonlocal count
            count += 1
            bar.update(task, description=f"{title} {subject}: {doing}")

        token = _shown.set(bar)
        try:
            yield step
        finally:
            _shown.reset(token)
    if quiet:
        seconds = time.monotonic() - started
        print(f"{title}: {count} steps in {seconds:.1f} s", file=sys.stderr)


@contextmanager
def counted(doing: str, total: int) -> Iterator[Advance]:
    """A bar below the steps: call with how much more is done (bytes, rows, files)."""
    bar = _shown.get()
    if bar is None:
        yield _nobody_looks
        return
    task = bar.add_task(doing, total=total)
    try:
        yield partial(bar.advance, task)
    finally:
        bar.remove_task(task)


def _nobody_looks(more: int) -> None:
    pass
