"""The commands and their arguments: no work is done here, and nothing heavy is imported."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from export.reference.errors import ReferenceModelError

if TYPE_CHECKING:
    Choices = argparse._SubParsersAction[argparse.ArgumentParser]


def _catalogue(choices: "Choices") -> None:
    parser = choices.add_parser("catalogue", help="draw creatives with known labels into a folder")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--count", type=int, default=500, help="how many (default 500)")
    parser.add_argument("--seed", type=int, default=7)
    parser.set_defaults(run=_run_catalogue)


def _run_catalogue(arguments: argparse.Namespace) -> None:
    from export.reference.catalogue import generate, write
    from export.reference.progress import progress

    if arguments.count < 1:
        raise ReferenceModelError(f"--count: expected 1 or more, found {arguments.count}")
    with progress("draw creatives", arguments.count) as advance:
        for _ in write(generate(arguments.count, arguments.seed), arguments.out):
            advance()


COMMANDS: tuple[Callable[["Choices"], None], ...] = (_catalogue,)
