"""`checks.json`: how a language model is asked, and what its answers mean.

In: the file beside a model's weights. Out: frozen records, shared by training, export and serving;
no torch in here. Prompts are cut into a part that is the same for all ads (`prefix`, which the
engine computes once), one that holds the ad (`body`), and the question's end (`suffix`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from export.decode import decode
from export.errors import ManifestError, SourceError

CHECKS_FILE = "checks.json"
PLACES = ("query", "title", "text", "image")
_PLACE = re.compile(r"\{([a-z]*)\}")


@dataclass(frozen=True, slots=True)
class Labels:
    """The two answers; each is one token."""

    yes: str
    no: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt; `body` holds places such as `{title}`."""

    prefix: str
    body: str
    suffix: str


@dataclass(frozen=True, slots=True)
class CaptionPrompt:
    """A prompt whose answer is text of at most `max_tokens`."""

    prefix: str
    body: str
    suffix: str
    max_tokens: int

    @property
    def prompt(self) -> Prompt:
        return Prompt(self.prefix, self.body, self.suffix)


@dataclass(frozen=True, slots=True)
class Prompts:
    """One prompt a task; risk has one a category."""

    relevance: Prompt
    risk: Mapping[str, Prompt]
    caption: CaptionPrompt | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How many tokens of each field are read; the rest is cut off."""

    query_tokens: int
    title_tokens: int
    text_tokens: int


@dataclass(frozen=True, slots=True)
class Affine:
    """p = sigmoid(scale * (log p(yes) - log p(no)) + bias)."""

    scale: float = 1.0
    bias: float = 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted on held-out labels."""

    relevance: Affine
    risk: Mapping[str, Affine]


@dataclass(frozen=True, slots=True)
class Threshold:
    """Calibrated probabilities from which on an ad is reviewed, or blocked."""

    review: float
    block: float


@dataclass(frozen=True, slots=True)
class Encoder:
    """The image encoder that the adapter was trained on."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class Checks:
    """All of `checks.json`.

    context: the longest prompt with its answer, in tokens. enforce: a verdict `block` takes the ad
    down; otherwise it only marks the ad. image_mark: what stands before the soft tokens. filler:
    one token that prefixes are filled with to whole blocks, since only those are cached; none: "".
    """

    labels: Labels
    prompts: Prompts
    limits: Limits
    context: int
    calibration: Calibration
    thresholds: Mapping[str, Threshold]
    enforce: bool = True
    soft_tokens: int = 0
    image_mark: str = ""
    block_size: int = 32
    filler: str = ""
    encoder: Encoder | None = None


def parse(data: bytes, where: str = CHECKS_FILE) -> Checks:
    """Read and check the bytes of a `checks.json`. Raises SourceError, with the field at fault."""
    try:
        checks = decode(Checks, json.loads(data), where)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} is not JSON: {error}") from error
    except ManifestError as error:
        raise SourceError(str(error)) from error
    _check(checks, where)
    return checks


def read(folder: Path) -> Checks:
    """The `checks.json` of a folder. Raises SourceError, which says what one is."""
    file = folder / CHECKS_FILE
    if not file.is_file():
        raise SourceError(
            f"{folder} has no {CHECKS_FILE}. A language model becomes a judge by saying how it is "
            "asked: add one with labels (yes, no: one token each), prompts (relevance, risk by "
            "category, caption), limits, context, calibration, thresholds "
            "(docs/checks.md has an example)"
        )
    return parse(file.read_bytes(), str(file))


def places(body: str) -> Iterator[tuple[str, str | None]]:
    """A body as pairs: literal text, and the place that follows it (None at the end)."""
    at = 0
    for match in _PLACE.finditer(body):
        yield body[at : match.start()], match.group(1)
        at = match.end()
    yield body[at:], None


def _check(checks: Checks, where: str) -> None:
    named = {f"risk.{name}": prompt for name, prompt in checks.prompts.risk.items()}
    if checks.prompts.caption is not None:
        named["caption"] = checks.prompts.caption.prompt
    for name, prompt in (named | {"relevance": checks.prompts.relevance}).items():
        found = [place for _, place in places(prompt.body) if place is not None]
        unknown = sorted(set(found) - set(PLACES))
        twice = len(found) != len(set(found))
        if unknown or twice or not found or ("query" in found) != (name == "relevance"):
            raise SourceError(
                f"{where}: prompts.{name}.body: expected each of {PLACES} at most once, and "
                f"{{query}} in relevance alone; found {found}"
            )
    for field in ("context", "block_size"):
        if getattr(checks, field) < 1:
            raise SourceError(f"{where}: {field}: expected a positive number")
    risks = set(checks.prompts.risk)
    for field, given in (
        ("thresholds", set(checks.thresholds)),
        ("calibration.risk", set(checks.calibration.risk)),
    ):
        if given != risks:
            raise SourceError(
                f"{where}: {field}: expected {sorted(risks)} as in prompts.risk, "
                f"found {sorted(given)}"
            )
    for name, threshold in checks.thresholds.items():
        if not 0 < threshold.review <= threshold.block <= 1:
            raise SourceError(f"{where}: thresholds.{name}: expected 0 < review <= block <= 1")
