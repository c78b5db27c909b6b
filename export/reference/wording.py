"""Titles and texts of generated ads, with the policy categories that their words break.

A text is put together from openings, product phrases and offers; each broken category adds one
phrase of its own grammar. Some harmless ads carry words that only look risky ("wine red", "dice
print"), so that a judge has to read and not only spot words.
"""

import numpy as np

from export.reference.labels import noun
from export.reference.phrases import (
    BITS,
    BRANDS,
    DECOYS,
    MATERIALS,
    OFFERS,
    OPENINGS,
    RISKS,
    SHOUTS,
    TITLES,
)

TEXT_LABELS = (*RISKS, "low_quality", "clutter")


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def title(product: str, colour: str, rng: np.random.Generator) -> str:
    """A title that names the product and, mostly, its colour."""
    return _pick(TITLES, rng).format(
        brand=_pick(BRANDS, rng),
        material=_pick(MATERIALS, rng),
        colour=colour,
        noun=noun(product),
    )


def text(product: str, colour: str, labels: tuple[str, ...], rng: np.random.Generator) -> str:
    """A text of two to five sentences that breaks exactly the given `labels` (of `TEXT_LABELS`)."""
    words = {"colour": colour, "noun": noun(product)}
    sentences = [
        _pick(OPENINGS, rng).format(
            brand=_pick(BRANDS, rng), material=_pick(MATERIALS, rng), **words
        ),
        _pick(OFFERS, rng),
    ]
    if rng.random() < 0.4:
        sentences.append(_pick(DECOYS, rng))
    if rng.random() < 0.3:
        sentences.append(_pick(OFFERS, rng))
    for label in labels:
        if label in RISKS:
            where = int(rng.integers(len(sentences) + 1))
            sentences.insert(where, risky_phrase(label, rng))
    body = " ".join(sentences)
    if "low_quality" in labels:
        body = _shouted(body, rng)
    if "clutter" in labels:
        body += " " + " | ".join(_pick(BITS, rng) for _ in range(int(rng.integers(8, 14))))
    return body


def risky_phrase(label: str, rng: np.random.Generator) -> str:
    """One sentence that breaks `label`."""
    grammars = RISKS[label]
    template, slots = grammars[int(rng.integers(len(grammars)))]
    return template.format(*(_pick(options, rng) for options in slots))


def _shouted(body: str, rng: np.random.Generator) -> str:
    """Careless writing: misspelt cries and rows of exclamation marks."""
    cries = [_pick(SHOUTS, rng) + "!" * int(rng.integers(2, 5)) for _ in range(3)]
    return f"{cries[0]} {body} {cries[1]} {cries[2]}"
