"""What the main job needs before anything is deployed: bundles and creatives.

In: folders. Out: the models that there are, and a catalogue. What is missing is made by the
export package in a subprocess: serving opens bundles, it never makes them.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError
from export.repository import Repository
from serving.config import CHECKS, REFERENCE_MODELS
from serving.errors import ConfigurationError, MainJobError
from serving.up import creatives
from serving.up.options import reading
from serving.up.progress import step

LLM_KIND = "llm"  # not a model of tensors: served by the checks application alone
CATALOGUE = Path("var/catalogue")
CATALOGUE_COUNT = 300
CATALOGUE_SEED = 7


@dataclass(frozen=True, slots=True)
class Bundles:
    """Versions by name: of models that are served as such, and of the checks' language model."""

    models: dict[str, str]
    checks: dict[str, str]


def open_bundles(root: Path | str, *, llm: bool, key: Path | None = None) -> Bundles:
    """What a repository holds. In a folder the reference bundles are made if missing or older than
    the package, and a bundle made from another model is left alone. A URL, or a folder whose
    bundles must be signed, is only read.

    llm: with the checks' language model. key: public one that must have signed them all. Raises
    MainJobError when they cannot be made, ConfigurationError when a bundle is damaged, not signed
    by the key, or missing behind a URL.
    """
    repository = Repository(root, public_key=key)
    wanted = (*REFERENCE_MODELS, CHECKS) if llm else REFERENCE_MODELS
    missing = sorted(set(wanted) - set(_names(repository)))
    if isinstance(root, str) or key is not None:
        if missing:
            kind = "lies behind a URL" if key is None else "must be signed"
            publish = f"python -m export shipped --out {root}{' --sign KEY' if key else ''}"
            raise ConfigurationError(
                f"--models {root}: expected {', '.join(missing)}, which is not there; what {kind} "
                f"is only read: publish it ({publish})"
            )
    # Also those made from older weights of the package: they would not fit each other any more.
    elif missing or os.access(root, os.W_OK):
        only = [argument for name in wanted for argument in ("--only", name)]
        _export("bundles", "export", "shipped", "--out", str(root), *only)
    kept = "" if repository.cache is None else f", kept in {repository.cache}"
    try:
        with step(f"opening the bundles of {root}{kept}"):
            found = [repository.open(name).manifest for name in repository.names()]
    except ExportError as error:
        raise ConfigurationError(f"--models {root}: {error}") from error
    return Bundles(
        models={m.name: m.version for m in found if m.kind != LLM_KIND},
        checks={m.name: m.version for m in found if llm and m.name == CHECKS},
    )


def open_creatives(folder: Path | None) -> creatives.Catalogue:
    """The creatives of a folder; None: a drawn catalogue, made once and kept in var/."""
    if folder is not None:
        with reading("--creatives"):
            return creatives.read(folder)
    target = CATALOGUE / f"{CATALOGUE_COUNT}-{CATALOGUE_SEED}"
    if not (target / "ads.jsonl").is_file():
        with reading("the drawn catalogue (--creatives names another)"):
            target.parent.mkdir(parents=True, exist_ok=True)
        drawn = ("catalogue", "--out", str(target), "--count", str(CATALOGUE_COUNT))
        _export("a catalogue", "export.reference", *drawn, "--seed", str(CATALOGUE_SEED))
    return creatives.read(target)


def _names(repository: Repository) -> list[str]:
    try:
        return repository.names()
    except ExportError as error:
        raise ConfigurationError(f"--models {repository.root}: {error}") from error


def _export(what: str, module: str, *arguments: str) -> None:
    """Run `python -m module ...`; its own progress goes to stderr."""
    command = [sys.executable, "-m", module, *arguments]
    with step(f"making {what}"):
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        said = done.stdout.strip().splitlines()[-1:]
        raise MainJobError(f"`python -m {module}` ended with code {done.returncode}: {said}")
