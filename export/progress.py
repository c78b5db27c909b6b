"""What an export is doing now: a live line on a terminal, one summary line elsewhere (stderr)."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def steps(title: str) -> Iterator[Callable[[str, str], None]]:
    """Show steps of unknown length: call with a subject and what is being done with it."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    started = time.monotonic()
    count = 0
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def step(subject: str, doing: str) -> None:
            nonlocal count
            count += 1
            bar.update(task, description=f"{title} {subject}: {doing}")

        yield step
    if not console.is_terminal:
        seconds = time.monotonic() - started
        print(f"{title}: {count} steps in {seconds:.1f} s", file=sys.stderr)
