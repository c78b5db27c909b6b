"""`python -m export`: make, look at, check and choose bundles.

Exit codes: 0 done; 1 parity below the bar or a bundle that must not be loaded; 2 wrong input.
"""

import argparse
import sys

from export import commands, making
from export.errors import ExportError, IntegrityError, ParityError


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="From a trained checkpoint to an immutable, verified, versioned bundle.",
        epilog="Reference models are trained by `python -m export.reference`.",
    )
    choices = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    making.add_commands(choices)
    commands.add_commands(choices)
    arguments = parser.parse_args(argv)
    try:
        result: int = arguments.run(arguments)
    except (ExportError, OSError) as error:  # also a disk that is full, or may only be read
        print(f"{parser.prog} {arguments.command}: {error}", file=sys.stderr)
        return 1 if isinstance(error, (IntegrityError, ParityError)) else 2
    except KeyboardInterrupt:
        return 130
    return result


if __name__ == "__main__":
    sys.exit(main())
