"""`python -m benchmarks BENCHMARK`: figures, and how far they can be believed.

In: arguments. Out: tables on stderr, one JSON line last on stdout; exit code 1 for a run that is
not valid or an expectation that is not met, 2 for wrong arguments, 130 for Ctrl-C. A bar that is
not met is a result, not a failure: it is in the line, with its interval.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from . import commands
from .errors import BenchmarkError


def _scale(text: str) -> float:
    wrong = argparse.ArgumentTypeError(f"scale must be above 0 and at most 10; found {text}")
    try:
        value = float(text)
    except ValueError:
        raise wrong from None
    if not 0 < value <= 10:
        raise wrong
    return value


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"expected a file, there is none at {text}")
    return Path(text)


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "http" or parts.hostname is None:
        raise argparse.ArgumentTypeError(f"expected http://HOST:PORT; found {text}")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = parser.add_subparsers(dest="command", required=True, metavar="BENCHMARK")
    for name, (run, about) in commands.ALL.items():
        sub = known.add_parser(name, help=about)
        sub.set_defaults(run=run)
        sub.add_argument("--seed", type=int, default=1)
        if name != "counters":
            sub.add_argument("--scale", type=_scale, default=1.0, help="1.0 is the full size")
    sub = known.choices["lookup"]
    sub.add_argument("--feast", action="store_true", help="beside Feast, in a place of its own")
    sub.add_argument("--plot", type=Path, metavar="DIR", help="draw latency over ids there")
    for name, parts in (
        ("faults", commands.FAULTS),
        ("models", commands.PARTS),
        ("checks", commands.CHECKS),
    ):
        some = "some of them; all by default"
        known.choices[name].add_argument("--only", nargs="+", choices=parts, help=some)
    sub = known.choices["checks"]
    sub.add_argument("--model", choices=("medium", "tiny"), default="medium", help="%(default)s")
    for name in ("models", "int8"):
        sub = known.choices[name]
        sub.add_argument("--size", choices=("full", "tiny"), default="full", help="%(default)s")
    known.choices["int8"].add_argument("--photos", type=Path, metavar="DIR", help="real inputs")
    for name in ("serve", "routes"):
        _target(known.choices[name])
    sub = known.choices["semantic_id"]
    for name, about in (
        ("--embeddings", "rows (n, D), .npy"),
        ("--items", "a line an item: title, source, product, category"),
        ("--pairs", "rows (m, 3): row, row, same product, .npy"),
    ):
        sub.add_argument(name, type=Path, required=True, metavar="FILE", help=about)
    sub = known.choices["counters"]
    sub.add_argument("--check", type=_file, metavar="FILE", help="compare with these")
    return parser


def _target(sub: argparse.ArgumentParser) -> None:
    """A Tessera that runs already, or none."""
    sub.add_argument("--url", type=_url, help="a Tessera that runs; by default one is started")
    sub.add_argument("--grpc", default="127.0.0.1:9000", help="its gRPC address (%(default)s)")
    sub.add_argument("--ads", type=int, default=300, help="it holds the ads 1..ADS (%(default)s)")
    sub.add_argument("--redis", metavar="URL", help="its store, for the peer beside it")
    sub.add_argument("--models", type=Path, default=Path("var/models"), help="its bundles")
    sub.add_argument("--key-file", type=Path, help="holds the bearer key")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark; its exit code."""
    args = _parser().parse_args(arguments)
    try:
        args.run(args)
    except (BenchmarkError, ConnectionError) as error:  # what is measured has gone, or never was
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
