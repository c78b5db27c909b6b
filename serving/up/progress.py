"""Progress on stderr: bars on a terminal, one line a finished step elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Advance = Callable[[int], None]


@contextmanager
def step(title: str, total: int | None = None) -> Iterator[Advance]:
    """One step of the main job; call what it gives with how many items are done more.

    `total` None: nobody knows how long, the bar pulses.
    """
    console = Console(stderr=True)
    started = time.monotonic()
    columns = (
        TextColumn("{task.description:<42}"),
        BarColumn(),
        *((MofNCompleteColumn(),) if total is not None else ()),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)
        bar.update(task, total=total or 1, completed=total or 1)
    if not console.is_terminal:
        print(f"{title}: done in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
