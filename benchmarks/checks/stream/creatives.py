"""Creatives in clusters of near copies: crops, recolourings and reworded titles of generated ads.

In: a seed and counts. Out: subjects as a request brings them, with what is true of each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ImageEnhance

from export.reference.catalogue import Creative, generate, jpeg
from export.reference.labels import LABELS
from export.reference.wording import TEXT_LABELS, risky_phrase, title
from serving.checks.subjects import Subject, inline
from serving.ingest.ads import Ad

KINDS = ("crop", "recolour", "reword")
MOST_CUT = 0.10  # of a side
LIGHT, COLOUR = 0.15, 0.4  # half widths of what brightness and saturation are multiplied with
SENTENCES = tuple(name for name in TEXT_LABELS if name not in ("low_quality", "clutter"))


@dataclass(frozen=True, slots=True)
class Made:
    """One creative. kind: how it was made from its cluster's original. truth: labels that hold."""

    subject: Subject
    cluster: int
    kind: str
    truth: frozenset[str]


def clusters(creatives: int, count: int, seed: int) -> Iterator[Made]:
    """`creatives` in `count` clusters of nearly the same size, cluster by cluster."""
    for number, original in enumerate(generate(count, seed)):
        members = (creatives - number + count - 1) // count
        draw = np.random.default_rng((seed, number, 3))
        yield _made(original, number, "original", jpeg(original.image), original.title)
        for _ in range(members - 1):
            yield _copy(original, number, str(draw.choice(KINDS)), draw)


def singles(count: int, seed: int) -> Iterator[Made]:
    """Ads that are nobody's copies."""
    return clusters(count, count, seed)


def smuggled(made: Made, seed: int) -> Made:
    """The same with a sentence at its end that breaks one more category."""
    draw = np.random.default_rng((seed, made.cluster, 4))
    label = str(draw.choice([name for name in SENTENCES if name not in made.truth]))
    subject = made.subject
    text = f"{subject.text} {risky_phrase(label, draw)}"
    changed = inline(Ad(0, subject.title, text, subject.picture))
    return Made(changed, made.cluster, "smuggled", made.truth | {label})


def truth_of(made: list[Made], categories: tuple[str, ...]) -> NDArray[np.bool_]:
    """(n, categories)."""
    return np.array([[name in one.truth for name in categories] for one in made])


def _copy(original: Creative, cluster: int, kind: str, draw: np.random.Generator) -> Made:
    image, words = original.image, original.title
    if kind == "crop":
        left, upper, right, lower = draw.uniform(0, MOST_CUT, 4)
        w, h = image.size
        box = (int(w * left), int(h * upper), int(w * (1 - right)), int(h * (1 - lower)))
        image = image.crop(box)
    elif kind == "recolour":
        image = ImageEnhance.Brightness(image).enhance(1 + draw.uniform(-LIGHT, LIGHT))
        image = ImageEnhance.Color(image).enhance(1 + draw.uniform(-COLOUR, COLOUR))
    else:
        words = title(original.scene.product, original.scene.colour, draw)
    # Another quality, so that no copy has its original's bytes.
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=int(draw.integers(75, 96)))
    return _made(original, cluster, kind, buffer.getvalue(), words)


def _made(original: Creative, cluster: int, kind: str, picture: bytes, words: str) -> Made:
    ad = Ad(0, words, original.text, picture)
    held = frozenset(label for label in LABELS if label in original.evident_in)
    return Made(inline(ad), cluster, kind, held)
