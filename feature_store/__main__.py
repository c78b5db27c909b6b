"""The store from a shell: `python -m feature_store get|load|versions|...`.

In: arguments. Out: JSON lines on stdout, progress on stderr; exit code 2 and one line for errors,
130 for Ctrl-C.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from . import Flag, Status
from .doctor import examine
from .errors import FeatureStoreError
from .load import LoadOptions, load
from .plan import COSTS, plan
from .progress import bar
from .repair import open_damaged, repair
from .store import FeatureStore

_PATIENCE_S = 5.0  # a person would rather wait than be told UNAVAILABLE


def _say(value: object) -> None:
    print(json.dumps(value))


def _get(store: FeatureStore, args: argparse.Namespace) -> int:
    found = store.lookup(args.ids, version=args.version, deadline=_PATIENCE_S)
    for i, ad_id in enumerate(args.ids):
        status = Status(int(found.status[i]))
        served = status in (Status.HIT, Status.STALE)
        flags = int(found.flags[i])
        _say(
            {
                "ad_id": ad_id,
                "version": found.version,
                "status": status.name,
                "codes": found.codes[i].tolist() if served else None,
                "flags": [str(flag.name) for flag in Flag if flags & flag],
            }
        )
    return 0


def _load(store: FeatureStore, args: argparse.Namespace) -> int:
    with bar(args.file.name) as progress:
        options = LoadOptions(args.version, args.sequence, args.rate, not args.restart, progress)
        result = load(store, args.file, options)
    _say(asdict(result))
    return 0


def _versions(store: FeatureStore, _: argparse.Namespace) -> int:
    for version in store.versions():
        _say(asdict(version))
    return 0


def _activate(store: FeatureStore, args: argparse.Namespace) -> int:
    _say(asdict(store.activate(args.name, args.min_coverage, force=args.force)))
    return 0


def _rollback(store: FeatureStore, _: argparse.Namespace) -> int:
    _say(asdict(store.rollback()))
    return 0


def _retire(store: FeatureStore, args: argparse.Namespace) -> int:
    removed = 0
    with bar(f"retire {args.name}") as progress:

        def update(done: int, total: int) -> None:
            nonlocal removed
            removed = done
            progress(done, total)

        store.retire(args.name, wait=True, progress=update)
    _say({"version": args.name, "removed": removed})
    return 0


def _block(store: FeatureStore, args: argparse.Namespace) -> int:
    _say(asdict(store.block(args.ids, args.reason, args.source)))
    return 0


def _unblock(store: FeatureStore, args: argparse.Namespace) -> int:
    _say(asdict(store.unblock(args.ids, args.source)))
    return 0


def _delete(store: FeatureStore, args: argparse.Namespace) -> int:
    _say({"removed": store.delete(args.ids)})
    return 0


def _doctor(args: argparse.Namespace) -> int:
    with open_damaged(args.url, args.namespace) as store:
        if args.repair:
            with bar("remove retired versions") as progress:
                for sentence in repair(store, args.active, progress):
                    print(sentence, file=sys.stderr)
        findings = examine(store)
    for finding in findings:
        if sys.stdout.isatty():
            print(f"{finding.level:8}{finding.what}")
        else:
            _say(asdict(finding))
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _connect(args: argparse.Namespace) -> FeatureStore:
    return FeatureStore.connect(
        args.url,
        namespace=args.namespace,
        layout=getattr(args, "layout", None),
        expected_ads=getattr(args, "expected_ads", None),
    )


Command = Callable[[FeatureStore, argparse.Namespace], int]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m feature_store", description=__doc__)
    parser.add_argument("--url", default="redis://localhost:6379", help="the server's URL")
    parser.add_argument("--namespace", default="ads")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Command | None, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    sub = add("get", _get, "look ads up")
    sub.add_argument("ids", type=int, nargs="+")
    sub.add_argument("--version")
    sub = add("load", _load, "write a .parquet or .npz file; goes on where it was cut off")
    sub.add_argument("file", type=Path)
    sub.add_argument("--version", help="by default the active one")
    sub.add_argument("--sequence", type=int, help="for rows without one of their own")
    sub.add_argument("--rate", type=float, default=0.0, help="rows per second at most")
    sub.add_argument("--layout", choices=("default", "compact"), help="of a version that begins")
    sub.add_argument("--expected-ads", type=float, help="a compact catalogue's size, once full")
    sub.add_argument("--restart", action="store_true", help="from the first row on")
    add("versions", _versions, "list the versions")
    sub = add("activate", _activate, "serve another version")
    sub.add_argument("name")
    sub.add_argument("--min-coverage", type=float, default=0.99)
    sub.add_argument("--force", action="store_true", help="whatever it covers")
    add("rollback", _rollback, "serve the version that was active before")
    add("retire", _retire, "remove a version").add_argument("name")
    for name, run, text in (
        ("block", _block, "take ads down"),
        ("unblock", _unblock, "lift a block"),
        ("delete", _delete, "remove ads from every version"),
    ):
        sub = add(name, run, text)
        sub.add_argument("ids", type=int, nargs="+")
        if name == "block":
            sub.add_argument("--reason", required=True)
        if name != "delete":
            sub.add_argument("--source", choices=("human", "verdict"), default="human")
    sub = add("plan", None, "size a deployment, with either layout")
    sub.add_argument("--ads", type=float, required=True)
    sub.add_argument("--qps", type=float, required=True, help="lookups per second")
    sub.add_argument("--ids", type=float, required=True, help="ids per lookup")
    sub.add_argument("--versions", type=int, default=2, help="kept side by side")
    sub = add("doctor", None, "look the store over; exit code 1 if something is wrong")
    sub.add_argument("--repair", action="store_true", help="mend the versions' pointer, and go on")
    sub.add_argument(
        "--active", metavar="NAME", help="the version to serve, if the pointer is lost"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    args = _parser().parse_args(arguments)
    try:
        if args.command == "doctor":
            return _doctor(args)
        if args.run is None:
            for layout in COSTS:
                _say(asdict(plan(args.ads, args.qps, args.ids, args.versions, layout)))
            return 0
        with _connect(args) as store:
            run: Command = args.run
            return run(store, args)
    except FeatureStoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
