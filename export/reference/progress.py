"""One progress bar for every long command: live on a terminal, one summary line elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Moves the bar one step and shows the newest metrics."""

    def __call__(self, note: str = "", steps: int = 1) -> None: ...


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Shows how far a task of `total` steps is, on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    last = ""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(note: str = "", steps: int = 1) -> None:
            nonlocal last
            last = note or last
            bar.update(task, advance=steps, note=last)

        yield advance
    if not console.is_terminal:
        print(f"{title}: {total} done. {last}".rstrip(), file=sys.stderr)
