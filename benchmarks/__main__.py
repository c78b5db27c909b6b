"""`python -m benchmarks lookup|serve|checks|counters`: figures, and how far they can be believed.

In: arguments. Out: tables on stderr, one JSON line last on stdout; exit code 1 for a run that is
not valid or an expectation that is not met, 2 for wrong arguments.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import BenchmarkError, InvalidRunError
from .report import finish


def _lookup(args: argparse.Namespace) -> None:
    from .lookup import run

    finish("lookup", args.seed, run(args.scale, args.seed))


def _serve(args: argparse.Namespace) -> None:
    from .serve import Target, run

    target = Target(args.url, args.grpc, args.ads, args.redis, args.models, args.key_file)
    results = run(target, args.scale, args.seed)
    finish("serve", args.seed, results)
    if args.scale >= 1 and not results["valid"]:
        raise InvalidRunError("a stage is not valid (see its column): run again")


def _checks(args: argparse.Namespace) -> None:
    from .checks import run
    from .random_llm import MEDIUM, TINY

    size = TINY if args.model == "tiny" else MEDIUM
    finish("checks", args.seed, {"model": args.model, **run(size, args.scale, args.seed)})


def _counters(args: argparse.Namespace) -> None:
    from .counters import check, measure

    found = measure()
    if args.check is not None:
        check(found, args.check)
    finish("counters", args.seed, {"lookup": found})


def _scale(text: str) -> float:
    value = float(text)
    if not 0 < value <= 10:
        raise argparse.ArgumentTypeError(f"scale must be above 0 and at most 10; found {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="BENCHMARK")
    sub = commands.add_parser("lookup", help="lookups against their peers on one server")
    sub.set_defaults(run=_lookup)
    sub.add_argument("--scale", type=_scale, default=1.0, help="1.0 is the full size")
    sub = commands.add_parser("checks", help="checks against the raw language-model engine")
    sub.set_defaults(run=_checks)
    sub.add_argument("--scale", type=_scale, default=1.0, help="1.0 is the full size")
    sub.add_argument("--model", choices=("medium", "tiny"), default="medium", help="%(default)s")
    sub = commands.add_parser("serve", help="the whole system under load, beside its parts")
    sub.set_defaults(run=_serve)
    sub.add_argument("--scale", type=_scale, default=1.0, help="1.0 is the full size")
    sub.add_argument("--url", help="a Tessera that runs; by default one is started")
    sub.add_argument("--grpc", default="127.0.0.1:9000", help="its gRPC address (%(default)s)")
    sub.add_argument("--ads", type=int, default=300, help="it holds the ads 1..ADS (%(default)s)")
    sub.add_argument("--redis", metavar="URL", help="its store, for the peer beside it")
    sub.add_argument("--models", type=Path, default=Path("var/models"), help="its bundles")
    sub.add_argument("--key-file", type=Path, help="holds the bearer key")
    sub = commands.add_parser("counters", help="round trips and bytes per lookup, exactly")
    sub.set_defaults(run=_counters)
    sub.add_argument("--check", type=Path, metavar="FILE", help="compare with these")
    for each in commands.choices.values():
        each.add_argument("--seed", type=int, default=1)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark; its exit code."""
    args = _parser().parse_args(arguments)
    try:
        args.run(args)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
