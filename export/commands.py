"""The commands' arguments, and what they print. Nothing heavy is imported before it is needed."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from export import shipped
from export.bundle import Bundle
from export.errors import ExportError, IntegrityError, MissingExtraError
from export.hashing import HashCache
from export.manifest import PRECISIONS
from export.progress import steps
from export.report import describe
from export.repository import Repository
from export.rules import check_name

if TYPE_CHECKING:
    Choices = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(choices: "Choices") -> None:
    """Declare every command."""
    command = choices.add_parser("shipped", help="make the reference bundles that are missing")
    command.add_argument("--out", type=Path, required=True, metavar="REPO")
    command.add_argument("--only", action="append", choices=shipped.NAMES, metavar="NAME")
    command.set_defaults(run=_shipped)

    command = choices.add_parser("onnx", help="export a trained model to ONNX and publish it")
    command.add_argument("source", metavar="SOURCE", help="a model folder, or package.module:func")
    command.add_argument("--out", type=Path, required=True, metavar="REPO")
    command.add_argument("--name", required=True, metavar="NAME")
    command.add_argument("--kind", choices=("image_encoder", "text_encoder"), help="which tower")
    command.add_argument("--precision", choices=PRECISIONS, default="fp32")
    command.add_argument(
        "--samples", type=Path, help="photos' folder, texts' file or vectors' .npy for parity"
    )
    command.add_argument("--fallback", action="store_true", help="fp32 where it misses its bar")
    command.add_argument("--sign", type=Path, metavar="KEY", help="private key, from `keys`")
    command.add_argument("--dry-run", action="store_true", help="do everything but publish")
    command.set_defaults(run=_onnx)

    command = choices.add_parser("vllm", help="publish a language model that judges ads")
    command.add_argument("source", type=Path, metavar="SOURCE", help="folder with a checks.json")
    command.add_argument("--out", type=Path, required=True, metavar="REPO")
    command.add_argument("--name", default="checks", metavar="NAME")
    command.add_argument("--sign", type=Path, metavar="KEY", help="private key, from `keys`")
    command.add_argument("--dry-run", action="store_true", help="do everything but publish")
    command.set_defaults(run=_vllm)

    command = choices.add_parser("inspect", help="print what a bundle takes, gives and was shown")
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="a folder REPO/NAME/VERSION")
    command.set_defaults(run=_inspect)

    command = choices.add_parser("ls", help="list a repository")
    command.add_argument("repository", type=Path, metavar="REPO")
    command.set_defaults(run=_ls)

    command = choices.add_parser("verify", help="verify every file of all or some versions")
    command.add_argument("repository", type=Path, metavar="REPO")
    command.add_argument("name", nargs="?", metavar="NAME")
    command.add_argument("version", nargs="?", metavar="VERSION")
    command.add_argument("--full", action="store_true", help="hash again what was hashed before")
    command.add_argument("--key", type=Path, help="public key that must have signed them")
    command.set_defaults(run=_verify)

    command = choices.add_parser("keys", help="make a pair of keys that sign bundles")
    command.add_argument("private", type=Path, metavar="PRIVATE")
    command.add_argument("public", type=Path, metavar="PUBLIC")
    command.set_defaults(run=_keys)

    command = choices.add_parser("pin", help="hold `latest` at a version, or let go with `latest`")
    command.add_argument("repository", type=Path, metavar="REPO")
    command.add_argument("name", metavar="NAME")
    command.add_argument("version", metavar="VERSION")
    command.set_defaults(run=_pin)

    command = choices.add_parser("rollback", help="pin the version before the one that serves")
    command.add_argument("repository", type=Path, metavar="REPO")
    command.add_argument("name", metavar="NAME")
    command.set_defaults(run=_rollback)


def _shipped(arguments: argparse.Namespace) -> int:
    names = arguments.only or shipped.NAMES
    with steps("export") as step:
        outcomes = shipped.make(Repository(arguments.out), names, step)
    for outcome in outcomes:
        manifest = outcome.bundle.manifest
        print(f"{manifest.name} {manifest.version}: {outcome.reason}")
    return 0


def _onnx(arguments: argparse.Namespace) -> int:
    repository = Repository(arguments.out, private_key=arguments.sign)
    name = arguments.name
    check_name(name)
    with steps("export") as step:
        step(name, "loading")
        try:
            from export.pipeline import Wanted, publish
            from export.sources.families import open_source
            from export.sources.samples import with_samples
        except ImportError as error:
            raise MissingExtraError(error.name or "torch") from error
        source = open_source(arguments.source, arguments.kind or name)
        if arguments.samples is not None:
            source = with_samples(source, arguments.samples)
        wanted = Wanted(arguments.precision, arguments.fallback, arguments.dry_run)
        bundle = publish(source, repository, name, partial(step, name), wanted)
    print("\n".join(describe(bundle)))
    if bundle.manifest.precision != arguments.precision:
        print(f"{arguments.precision} missed its bar: this is {bundle.manifest.precision}")
    if arguments.dry_run:
        print("dry run: nothing was published")
    return 0


def _vllm(arguments: argparse.Namespace) -> int:
    repository = Repository(arguments.out, private_key=arguments.sign)
    check_name(arguments.name)
    with steps("export") as step:
        step(arguments.name, "loading")
        try:
            from export.pipeline import Wanted, publish
            from export.sources.llm import read_llm
        except ImportError as error:
            raise MissingExtraError(error.name or "torch") from error
        wanted = Wanted(dry_run=arguments.dry_run)
        source = read_llm(arguments.source)
        bundle = publish(source, repository, arguments.name, partial(step, arguments.name), wanted)
    print("\n".join(describe(bundle)))
    if arguments.dry_run:
        print("dry run: nothing was published")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    print("\n".join(describe(Bundle.read(arguments.bundle, HashCache()))))
    return 0


def _ls(arguments: argparse.Namespace) -> int:
    repository = Repository(arguments.repository)
    for name in repository.names():
        current, pinned = repository.latest(name), repository.pinned(name)
        for version in repository.versions(name):
            mark = "" if version != current else " pinned" if pinned else " latest"
            print(f"{name} {version}{mark}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    repository = Repository(arguments.repository, public_key=arguments.key)
    bad = 0
    for name in [arguments.name] if arguments.name else repository.names():
        wanted = [arguments.version] if arguments.version else repository.versions(name)
        for version in wanted or ["latest"]:
            try:
                repository.open(name, version, full=arguments.full)
                print(f"{name} {version}: verified")
            except ExportError as error:
                bad += 1
                print(f"{name} {version}: {error}")
    if bad:
        raise IntegrityError(f"{bad} of these must not be loaded")
    return 0


def _keys(arguments: argparse.Namespace) -> int:
    from export.signature import make_keys

    make_keys(arguments.private, arguments.public)
    print(f"{arguments.private} signs (`onnx --sign`), {arguments.public} is for `verify --key`")
    return 0


def _pin(arguments: argparse.Namespace) -> int:
    repository = Repository(arguments.repository)
    repository.pin(arguments.name, arguments.version)
    print(f"{arguments.name}: {repository.latest(arguments.name)} serves")
    return 0


def _rollback(arguments: argparse.Namespace) -> int:
    version = Repository(arguments.repository).rollback(arguments.name)
    print(f"{arguments.name}: {version} serves, and is pinned until `pin {arguments.name} latest`")
    return 0
