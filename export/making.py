"""Commands that make bundles: arguments, and what is printed.

In: arguments. Out: published bundles, and an exit code. torch is imported by what needs it.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from export import shipped
from export.commands import open_bundle
from export.errors import MissingExtraError, SourceError
from export.manifest import PRECISIONS
from export.progress import steps
from export.report import describe as describe_bundle
from export.repository import Repository
from export.rules import check_name
from export.sources.folders import missing

if TYPE_CHECKING:
    from export.pipeline import Wanted
    from export.sources.source import ModelSource

    Choices = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(choices: "Choices") -> None:
    """Declare them."""
    command = choices.add_parser("shipped", help="make the reference bundles that are missing")
    command.add_argument("--out", required=True, metavar="REPO")
    command.add_argument("--only", action="append", choices=shipped.NAMES, metavar="NAME")
    command.add_argument("--sign", type=Path, metavar="KEY", help="private key, from `keys`")
    command.add_argument("--dry-run", action="store_true", help="say what would be made")
    _add_rows(command, "20,480, of these 2,048 at batch 1")
    command.set_defaults(run=_shipped)

    command = choices.add_parser("onnx", help="export a trained model to ONNX and publish it")
    command.add_argument(
        "source", metavar="SOURCE", help="a model folder, package.module:func, or a hub id"
    )
    command.add_argument(
        "--download", action="store_true", help="SOURCE is ORG/NAME[@REVISION]: fetch it"
    )
    _add_publishing(command)
    command.add_argument("--name", required=True, metavar="NAME")
    command.add_argument("--kind", choices=("image_encoder", "text_encoder"), help="which tower")
    command.add_argument("--precision", choices=PRECISIONS, default="fp32")
    command.add_argument(
        "--samples", type=Path, help="photos' folder, texts' file or vectors' .npy for parity"
    )
    command.add_argument("--fallback", action="store_true", help="fp32 where it misses its bar")
    command.add_argument(
        "--fuse", metavar="TOKENIZER", help="`semantic_id` (the shipped one), or its weights' file"
    )
    _add_rows(command, "100,000")
    command.set_defaults(run=_onnx)

    command = choices.add_parser("semantic_id", help="publish a tokenizer, ours or another's")
    command.add_argument(
        "source", metavar="SOURCE", help="its folder or .safetensors, or `semantic_id`: the shipped"
    )
    _add_publishing(command)
    command.add_argument("--name", default="semantic_id", metavar="NAME")
    command.add_argument("--samples", type=Path, help="vectors' .npy for parity")
    _add_rows(command, "100,000")
    command.set_defaults(run=_semantic_id)

    command = choices.add_parser("vllm", help="publish a language model that judges ads")
    command.add_argument("source", type=Path, metavar="SOURCE", help="folder with a checks.json")
    _add_publishing(command)
    command.add_argument("--name", default="checks", metavar="NAME")
    command.add_argument("--merge", type=Path, metavar="LORA", help="add this LoRA to the weights")
    command.add_argument(
        "--lora", type=Path, action="append", default=[], metavar="LORA", help="put it beside them"
    )
    command.add_argument("--quantize", metavar="SCHEME", help="with llm-compressor: W8A8, ...")
    command.set_defaults(run=_vllm)

    command = choices.add_parser("tensorrt", help="build a bundle's plans on the GPU that serves")
    command.add_argument("bundle", metavar="BUNDLE", help="REPO/NAME/VERSION, a folder or a URL")
    command.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="AXIS=MIN,OPT,MAX",
        help="sizes of an axis",
    )
    command.add_argument("--workspace-mb", type=int, default=4096, metavar="MB")
    command.add_argument("--dry-run", action="store_true", help="say what would be built")
    command.set_defaults(run=_tensorrt)


def _add_publishing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", required=True, metavar="REPO", help="a folder or a URL")
    command.add_argument("--sign", type=Path, metavar="KEY", help="private key, from `keys`")
    command.add_argument("--dry-run", action="store_true", help="do everything but publish")


def _add_rows(command: argparse.ArgumentParser, otherwise: str) -> None:
    command.add_argument(
        "--rows",
        type=_positive,
        metavar="N",
        help=f"vectors to compare a tokenizer's codes on at batch 1, 64 and 1024 ({otherwise})",
    )


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, found {text}")
    return int(text)


def _shipped(arguments: argparse.Namespace) -> int:
    names = arguments.only or shipped.NAMES
    repository = Repository(arguments.out, private_key=arguments.sign)
    if arguments.dry_run:
        for name in names:
            print(f"dry run: {name} {shipped.state(repository, name)}")
        return 0
    with steps("export") as step:
        outcomes = shipped.make(repository, names, step, arguments.rows)
    for outcome in outcomes:
        manifest = outcome.bundle.manifest
        print(f"{manifest.name} {manifest.version}: {outcome.reason}")
    return 0


def _onnx(arguments: argparse.Namespace) -> int:
    def read() -> "ModelSource":
        from export.sources.families import open_source
        from export.sources.hub import open_from_hub
        from export.sources.samples import with_samples

        open_it = open_from_hub if arguments.download else open_source
        source = open_it(arguments.source, arguments.kind or arguments.name)
        if arguments.fuse:
            from export.sources.fused import fuse
            from export.sources.semantic_id import GATE_ROWS

            source = fuse(source, arguments.fuse, arguments.rows or GATE_ROWS)
        return source if arguments.samples is None else with_samples(source, arguments.samples)

    def wanted() -> "Wanted":
        from export.pipeline import Wanted

        return Wanted(arguments.precision, arguments.fallback, arguments.dry_run)

    return _publish(arguments, read, wanted)


def _semantic_id(arguments: argparse.Namespace) -> int:
    def read() -> "ModelSource":
        from export.sources.samples import with_samples
        from export.sources.semantic_id import GATE_ROWS
        from export.sources.tokenizers import open_tokenizer

        source = open_tokenizer(arguments.source, arguments.rows or GATE_ROWS)
        return source if arguments.samples is None else with_samples(source, arguments.samples)

    def wanted() -> "Wanted":
        from export.pipeline import Wanted

        return Wanted(dry_run=arguments.dry_run)

    return _publish(arguments, read, wanted)


def _vllm(arguments: argparse.Namespace) -> int:
    def read(folder: Path) -> "ModelSource":
        from export.sources.llm import read_llm

        name = arguments.source.resolve().name
        return read_llm(folder, name, arguments.merge, arguments.lora)

    def wanted() -> "Wanted":
        from export.pipeline import Wanted

        return Wanted(dry_run=arguments.dry_run)

    if not arguments.source.is_dir():
        raise missing(str(arguments.source))
    if arguments.quantize is None:
        return _publish(arguments, partial(read, arguments.source), wanted)
    if arguments.merge or arguments.lora:
        raise SourceError(
            "--quantize with --merge or --lora: an adapter belongs to the weights as they were "
            "trained; merge it first (peft's merge_and_unload), then quantize that folder"
        )
    from export.sources.compression import quantize

    with TemporaryDirectory(prefix="quantized-") as scratch:
        folder = quantize(arguments.source, arguments.quantize, Path(scratch))
        return _publish(arguments, partial(read, folder), wanted)


def _publish(
    arguments: argparse.Namespace,
    read: "Callable[[], ModelSource]",
    wanted: "Callable[[], Wanted]",
) -> int:
    repository = Repository(arguments.out, private_key=arguments.sign)
    name = arguments.name
    check_name(name)
    with steps("export") as step:
        step(name, "loading")
        try:
            from export.pipeline import publish

            source = read()
        except ImportError as error:
            raise MissingExtraError(error.name or "torch") from error
        asked = wanted()
        bundle = publish(source, repository, name, partial(step, name), asked)
    print("\n".join(describe_bundle(bundle)))
    if bundle.manifest.precision != asked.precision:
        print(f"{asked.precision} missed its bar: this is {bundle.manifest.precision}")
    if arguments.dry_run:
        print("dry run: nothing was published")
    return 0


def _tensorrt(arguments: argparse.Namespace) -> int:
    from export.tensorrt_plan import BuildOptions, build, describe, parse_profiles

    options = BuildOptions(parse_profiles(arguments.profile), arguments.workspace_mb << 20)
    with steps("tensorrt") as step:
        step(arguments.bundle, "opening")
        bundle = open_bundle(arguments.bundle)
        if arguments.dry_run:
            lines = [f"dry run: {line}" for line in describe(bundle, options)]
        else:
            written = build(bundle, options, partial(step, bundle.manifest.name))
            lines = [str(path) for path in written]
    print("\n".join(lines))
    return 0
