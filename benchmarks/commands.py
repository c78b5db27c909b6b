"""The benchmarks by name: what `python -m benchmarks` runs for each, and what it is about.

In: parsed arguments. Out: the one JSON line. What a benchmark needs is imported when it runs.
"""

import argparse
from collections.abc import Callable

from .errors import InvalidRunError
from .report import finish, say

FAULTS = ("takedown", "flips", "shards", "channel", "mixing")  # the rooms of benchmarks/faults
CHECKS = (
    "overhead",
    "prefix",
    "leaving",
    "injection",
    "calibration",
    "cached",
    "peer",
    "stream",
    "soft_tokens",
)
# Of the models' figures.
PARTS = ("one_caller", "saturation", "arrivals", "serve_batch", "litserve", "rollout")


def _lookup(args: argparse.Namespace) -> None:
    from . import lookup, plot
    from .feast.environment import FOLDER

    results = lookup.run(args.scale, args.seed, FOLDER if args.feast else None)
    if args.plot is not None:
        say(f"drawn: {plot.lookup(results, args.plot)}")
    finish("lookup", args.seed, results)


def _growth(args: argparse.Namespace) -> None:
    from .store.growth import run

    finish("growth", args.seed, run(args.scale, args.seed))


def _memory(args: argparse.Namespace) -> None:
    from .store.memory import run

    finish("memory", args.seed, run(args.scale, args.seed))


def _writing(args: argparse.Namespace) -> None:
    from .store.writing import run

    finish("writing", args.seed, run(args.scale, args.seed))


def _faults(args: argparse.Namespace) -> None:
    from .faults import run

    finish("faults", args.seed, run(args.only or FAULTS, args.scale, args.seed))


def _serve(args: argparse.Namespace) -> None:
    from .serve import Target, run

    target = Target(args.url, args.grpc, args.ads, args.redis, args.models, args.key_file)
    results = run(target, args.scale, args.seed)
    finish("serve", args.seed, results)
    if args.scale >= 1 and not results["valid"]:
        raise InvalidRunError("a stage is not valid (see its column): run again")


def _routes(args: argparse.Namespace) -> None:
    from .serve import Target, routes_only

    target = Target(args.url, args.grpc, args.ads, args.redis, args.models, args.key_file)
    finish("routes", args.seed, routes_only(target, args.scale, args.seed))


def _checks(args: argparse.Namespace) -> None:
    from .checks import run

    results = run(args.only or list(CHECKS), args.model, args.scale, args.seed)
    finish("checks", args.seed, {"model": args.model, **results})


def _models(args: argparse.Namespace) -> None:
    from .models.made import FULL, TINY
    from .models.run import run

    size = TINY if args.size == "tiny" else FULL
    finish("models", args.seed, run(size, args.only or PARTS, args.scale))


def _int8(args: argparse.Namespace) -> None:
    from .int8 import run
    from .models.made import FULL, TINY

    size = TINY if args.size == "tiny" else FULL
    finish("int8", args.seed, run(args.photos, size, args.scale))


def _bundles(args: argparse.Namespace) -> None:
    from .bundles import run

    finish("bundles", args.seed, run(args.scale, args.seed))


def _semantic_id(args: argparse.Namespace) -> None:
    from .semantic_id import run

    results = run(args.embeddings, args.items, args.pairs, args.scale, args.seed)
    finish("semantic_id", args.seed, results)


def _counters(args: argparse.Namespace) -> None:
    from .counters import check, measure

    found = measure()
    if args.check is not None:
        check(found, args.check)
    finish("counters", args.seed, {"lookup": found})


ALL: dict[str, tuple[Callable[[argparse.Namespace], None], str]] = {
    "lookup": (_lookup, "lookups against their peers on one server"),
    "growth": (_growth, "a million lookups: does their cost or memory grow"),
    "memory": (_memory, "server memory and CPU a record, by layout and kind of id"),
    "writing": (_writing, "bulk writes, and what readers feel of them"),
    "faults": (_faults, "takedowns, flips, dying and hanging servers"),
    "serve": (_serve, "the whole system under load, beside its parts"),
    "routes": (_routes, "lookups over HTTP and gRPC beside an empty route"),
    "checks": (_checks, "checks against the raw language-model engine"),
    "models": (_models, "served models against the bare runtime session"),
    "int8": (_int8, "an int8 image tower beside fp32 of the same graph"),
    "bundles": (_bundles, "opening a bundle that was hashed once"),
    "semantic_id": (_semantic_id, "what semantic IDs keep of meaning, beside their peers"),
    "counters": (_counters, "round trips and bytes per lookup, exactly"),
}
