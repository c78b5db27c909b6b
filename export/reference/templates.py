"""The texts that stand for a class: data, and needing no library."""

from collections.abc import Sequence

from export.reference.labels import noun

# A class is the mean of these; {raw} is the folder's name, {noun} what people call it.
TEMPLATES = (
    "{raw}",
    "{noun}",
    "a photo of a {raw}",
    "a photo of a {noun}",
    "a product photo of a {raw}",
    "a picture of a {noun} for sale",
    "clothing: {raw}",
)


def class_texts(classes: Sequence[str]) -> list[str]:
    """Every class in every template, templates outermost: len(TEMPLATES) * len(classes) texts."""
    return [t.format(raw=name, noun=noun(name)) for t in TEMPLATES for name in classes]
