"""Commands that look at repositories and choose from them; `export.making` has those that make.

In: arguments. Out: what is printed, and an exit code. Heavy packages are imported where needed.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from export.bundle import Bundle
from export.errors import ExportError, IntegrityError, ManifestError, NotFoundError
from export.garbage import parse_age
from export.hashing import HashCache
from export.progress import steps
from export.report import describe
from export.repository import Repository
from export.store import split_url

if TYPE_CHECKING:
    Choices = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(choices: "Choices") -> None:
    """Declare them."""
    command = choices.add_parser("inspect", help="print what a bundle takes, gives and was shown")
    command.add_argument("bundle", metavar="BUNDLE", help="REPO/NAME/VERSION, a folder or a URL")
    command.add_argument(
        "--samples", type=Path, metavar="DIR", help="pictures for the sheet of a tokenizer's codes"
    )
    command.add_argument(
        "--sheet", type=Path, metavar="PNG", help="where it goes; by default NAME-VERSION.png"
    )
    command.add_argument(
        "--encoder", metavar="BUNDLE", help="image encoder; by default the newest one beside it"
    )
    command.set_defaults(run=_inspect)

    command = choices.add_parser("ls", help="list a repository")
    command.add_argument("repository", metavar="REPO", help="a folder or a URL")
    command.set_defaults(run=_ls)

    command = choices.add_parser("verify", help="verify every file of all or some versions")
    command.add_argument("repository", metavar="REPO")
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
    command.add_argument("repository", metavar="REPO")
    command.add_argument("name", metavar="NAME")
    command.add_argument("version", metavar="VERSION")
    command.add_argument("--dry-run", action="store_true", help="say what would serve")
    command.set_defaults(run=_pin)

    command = choices.add_parser("rollback", help="pin the version before the one that serves")
    command.add_argument("repository", metavar="REPO")
    command.add_argument("name", metavar="NAME")
    command.add_argument("--dry-run", action="store_true", help="say what would serve")
    command.set_defaults(run=_rollback)

    command = choices.add_parser("gc", help="remove what publishers that died left behind")
    command.add_argument("repository", metavar="REPO", help="a folder or a URL")
    command.add_argument(
        "--older-than", default="24h", metavar="AGE", help="hours or days: 24h, 7d (%(default)s)"
    )
    command.add_argument("--dry-run", action="store_true", help="say what would be removed")
    command.set_defaults(run=_collect)


def open_bundle(spec: str) -> Bundle:
    """Open what `REPO/NAME/VERSION` names, a folder or a URL. Raises ExportError."""
    if split_url(spec) is None:
        return Bundle.read(Path(spec), HashCache())
    root, _, version = spec.rstrip("/").rpartition("/")
    root, _, name = root.rpartition("/")
    if not name or root.endswith("/"):
        raise ManifestError(f"{spec}: expected REPO/NAME/VERSION")
    return Repository(root).open(name, version)


def _inspect(arguments: argparse.Namespace) -> int:
    with steps("inspect") as step:
        step(arguments.bundle, "opening")
        bundle = open_bundle(arguments.bundle)
        lines = describe(bundle)
        if arguments.samples is not None:
            from export.contact_sheet import draw

            if arguments.encoder:
                encoder = open_bundle(arguments.encoder)
            else:
                encoder = Repository(_repository_of(arguments.bundle)).open("image_encoder")
            manifest = bundle.manifest
            sheet = arguments.sheet or Path(f"{manifest.name}-{manifest.version}.png")
            step(arguments.bundle, "drawing its contact sheet")
            lines.append(f"{draw(bundle, encoder, arguments.samples, sheet)}: {sheet}")
    print("\n".join(lines))
    return 0


def _existing(root: str, public_key: Path | None = None) -> Repository:
    """A repository that is there: a mistyped folder must not look like an empty one."""
    repository = Repository(root, public_key=public_key)
    if isinstance(repository.root, Path) and not repository.root.is_dir():
        raise NotFoundError(f"{root}: expected a repository, there is no such folder")
    return repository


def _repository_of(spec: str) -> str:
    if split_url(spec) is None:
        return str(Path(spec).absolute().parent.parent)
    return spec.rstrip("/").rsplit("/", 2)[0]


def _ls(arguments: argparse.Namespace) -> int:
    repository = _existing(arguments.repository)
    for name in repository.names():
        current, pinned = repository.latest(name), repository.pinned(name)
        for version in repository.versions(name):
            mark = "" if version != current else " pinned" if pinned else " latest"
            print(f"{name} {version}{mark}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    repository = _existing(arguments.repository, arguments.key)
    bad, lines = 0, []
    with steps("verify") as step:
        for name in [arguments.name] if arguments.name else repository.names():
            wanted = [arguments.version] if arguments.version else repository.versions(name)
            for version in wanted or ["latest"]:
                step(name, version)
                try:
                    repository.open(name, version, full=arguments.full)
                    lines.append(f"{name} {version}: verified")
                except ExportError as error:
                    bad += 1
                    lines.append(f"{name} {version}: {error}")
    for line in lines:
        print(line)
    if bad:
        raise IntegrityError(f"{bad} of these must not be loaded")
    return 0


def _keys(arguments: argparse.Namespace) -> int:
    from export.signature import make_keys

    make_keys(arguments.private, arguments.public)
    print(f"{arguments.private} signs (`onnx --sign`), {arguments.public} is for `verify --key`")
    return 0


def _pin(arguments: argparse.Namespace) -> int:
    repository = _existing(arguments.repository)
    repository.pin(arguments.name, arguments.version, dry_run=arguments.dry_run)
    if arguments.dry_run:
        print(f"dry run: {arguments.name} could be held at {arguments.version}")
    else:
        print(f"{arguments.name}: {repository.latest(arguments.name)} serves")
    return 0


def _rollback(arguments: argparse.Namespace) -> int:
    name = arguments.name
    version = _existing(arguments.repository).rollback(name, dry_run=arguments.dry_run)
    if arguments.dry_run:
        print(f"dry run: {name} would go back to {version}")
    else:
        print(f"{name}: {version} serves, and is pinned until `pin {name} latest`")
    return 0


def _collect(arguments: argparse.Namespace) -> int:
    older_than_s = parse_age(arguments.older_than)
    repository = _existing(arguments.repository)
    with steps("gc") as step:
        step(arguments.repository, "looking for what no version names")
        found = repository.collect(older_than_s, dry_run=arguments.dry_run)
    for item in found:
        print(f"{item.name}: {item.bytes:,} bytes, {item.age_s / 3600:.1f} h old")
    total = sum(item.bytes for item in found)
    verb = "dry run: would remove" if arguments.dry_run else "removed"
    print(f"{verb} {len(found)} that no version names, {total:,} bytes")
    return 0
