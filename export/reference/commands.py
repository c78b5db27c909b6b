"""The commands and their arguments: no work is done here, and nothing heavy is imported."""

import argparse
import json
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

    _at_least(arguments, count=1, seed=0)
    with progress("draw creatives", arguments.count) as advance:
        for _ in write(generate(arguments.count, arguments.seed), arguments.out):
            advance()


def _image(choices: "Choices") -> None:
    parser = choices.add_parser("image", help="train the image tower and publish it")
    parser.add_argument("--photos", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--validation", type=Path, help="photos that are only scored, at the end")
    parser.add_argument("--out", type=Path, required=True, metavar="REPO")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default 2)")
    parser.set_defaults(run=_run_image)


def _run_image(arguments: argparse.Namespace) -> None:
    _at_least(arguments, epochs=1, seed=0, threads=1)
    import torch

    from export.reference.image_training import Plan
    from export.reference.runs import train_image

    torch.set_num_threads(arguments.threads)
    plan = Plan(epochs=arguments.epochs, seed=arguments.seed)
    bundle, card = train_image(arguments.photos, arguments.validation, plan, arguments.out)
    print(f"{bundle.manifest.name} {bundle.manifest.version}: {json.dumps(card.get('score'))}")


def _vectors(choices: "Choices") -> None:
    parser = choices.add_parser("vectors", help="embed what the tokenizer is learned on")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npy")
    parser.add_argument("--count", type=int, default=6000, help="drawn creatives (default 6000)")
    parser.add_argument("--photos", type=Path, help="folder of class folders")
    parser.add_argument("--titles", type=Path, help="embeddings (.npy) or titles (.jsonl)")
    parser.add_argument("--seed", type=int, default=11)
    parser.set_defaults(run=_run_vectors)


def _run_vectors(arguments: argparse.Namespace) -> None:
    _at_least(arguments, count=1, seed=0)
    import numpy as np

    from export.reference.photos import open_folder
    from export.reference.runs import make_vectors

    if not arguments.out.parent.is_dir():
        raise ReferenceModelError(f"--out: expected a folder at {arguments.out.parent}, found none")
    if arguments.out.is_dir():
        raise ReferenceModelError(f"--out: expected a file, found the folder {arguments.out}")
    # What is embedded last is looked for first.
    if arguments.photos is not None:
        open_folder(arguments.photos)
    if arguments.titles is not None and not arguments.titles.is_file():
        raise ReferenceModelError(f"--titles: expected a file at {arguments.titles}, found none")
    rows = make_vectors(arguments.photos, arguments.titles, arguments.count, arguments.seed)
    with arguments.out.open("wb") as file:
        np.save(file, rows.astype(np.float16))
    print(f"{arguments.out}: {len(rows)} rows")


def _semantic_id(choices: "Choices") -> None:
    parser = choices.add_parser("semantic_id", help="learn the semantic-ID tokenizer, publish it")
    parser.add_argument("--embeddings", type=Path, required=True, metavar="FILE.npy")
    parser.add_argument("--pairs", type=Path, metavar="FILE.npy", help="(m, 3): row, row, same")
    parser.add_argument(
        "--encoder",
        action="append",
        default=[],
        metavar="NAME@VERSION",
        help="a bundle in REPO that made the embeddings; once for each",
    )
    parser.add_argument(
        "--previous",
        type=Path,
        metavar="BUNDLE",
        help="start from its codebooks; its metric stays, --pairs then only keep products together",
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True, metavar="REPO")
    parser.set_defaults(run=_run_semantic_id)


def _run_semantic_id(arguments: argparse.Namespace) -> None:
    _at_least(arguments, seed=0)
    from export.reference.runs import Learning, train_semantic_id

    bundle, card = train_semantic_id(
        Learning(
            arguments.embeddings,
            arguments.pairs,
            tuple(arguments.encoder),
            arguments.previous,
            arguments.seed,
        ),
        arguments.out,
    )
    print(f"{bundle.manifest.name} {bundle.manifest.version}: {json.dumps(card['report'])}")


def _accuracy(choices: "Choices") -> None:
    parser = choices.add_parser("accuracy", help="judge exported encoders on photos")
    parser.add_argument("--photos", type=Path, required=True, help="folder of class folders")
    parser.add_argument(
        "--models",
        type=Path,
        metavar="REPO",
        help="bundles image_encoder, text_encoder (default: the shipped ones, in var/models)",
    )
    parser.set_defaults(run=_run_accuracy)


def _run_accuracy(arguments: argparse.Namespace) -> None:
    from export.reference.accuracy import lines, measure, open_models
    from export.reference.photos import open_folder

    open_folder(arguments.photos)  # says at once what is wrong with it, before models are made
    print("\n".join(lines(measure(arguments.photos, open_models(arguments.models)))))


def _checks(choices: "Choices") -> None:
    parser = choices.add_parser("checks", help="train the language model that judges ads")
    parser.add_argument("--out", type=Path, required=True, metavar="REPO")
    parser.add_argument("--photos", type=Path, help="class folders for the adapter to learn from")
    parser.add_argument("--validation", type=Path, help="photos that are only scored, at the end")
    parser.add_argument("--ads", type=int, default=20_000, help="generated ads (default 20000)")
    parser.add_argument("--adapter-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default 2)")
    parser.set_defaults(run=_run_checks)


def _run_checks(arguments: argparse.Namespace) -> None:
    _at_least(arguments, ads=1, adapter_steps=1, seed=0, threads=1)
    import torch

    from export.reference.checks.run import train_checks
    from export.reference.checks.training import Plan
    from export.reference.photos import open_folder
    from export.reference.publishing import training_folder

    torch.set_num_threads(arguments.threads)
    for folder in (arguments.photos, arguments.validation):
        if folder is not None:
            open_folder(folder)  # says at once what is wrong with it
    plan = Plan(arguments.seed, arguments.ads, arguments.adapter_steps)
    out = training_folder(arguments.out, "checks")
    card = train_checks(arguments.photos, arguments.validation, plan, out)
    print(f"{out}: {json.dumps(card)}")


def _checks_accuracy(choices: "Choices") -> None:
    parser = choices.add_parser("checks-accuracy", help="judge the shipped language model")
    parser.add_argument("--photos", type=Path, help="class folders: does this show a ...?")
    parser.add_argument("--seed", type=int, default=7, help="of the unseen ads")
    parser.set_defaults(run=_run_checks_accuracy)


def _run_checks_accuracy(arguments: argparse.Namespace) -> None:
    _at_least(arguments, seed=0)
    from export.reference.checks.run import judge_shipped
    from export.reference.photos import open_folder

    if arguments.photos is not None:
        open_folder(arguments.photos)
    print(json.dumps(judge_shipped(arguments.photos, arguments.seed), indent=2))


def _at_least(arguments: argparse.Namespace, **lowest: int) -> None:
    for name, value in lowest.items():
        found = getattr(arguments, name)
        if found < value:
            raise ReferenceModelError(f"--{name}: expected {value} or more, found {found}")


COMMANDS: tuple[Callable[["Choices"], None], ...] = (
    _catalogue,
    _image,
    _vectors,
    _semantic_id,
    _accuracy,
    _checks,
    _checks_accuracy,
)
