"""`python -m export.reference image|semantic_id|catalogue|accuracy ...`: one command a model.

Each command's module adds its own arguments and runs; heavy libraries are imported only then.
"""

import argparse
import sys

from export.errors import ExportError
from export.reference import commands


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns: 0, 2 after one line that says what was wrong, or 130 (Ctrl-C)."""
    parser = argparse.ArgumentParser(
        prog="python -m export.reference",
        description="Draws the catalogue, and trains, judges and publishes the reference models.",
    )
    choices = parser.add_subparsers(dest="command", required=True)
    for add in commands.COMMANDS:
        add(choices)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except (ExportError, OSError) as error:  # also a disk that is full, or may only be read
        print(f"{parser.prog} {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
