"""The generated catalogue: drawn creatives with titles, texts and known labels.

It is the default input of the main job, so that no data need be shipped, and the ground truth of
the checks: every label says whether the words, the picture or both give it away. Needs numpy and
Pillow only. A creative depends on its seed and its number alone, not on how many are drawn.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from export.reference.drawing import SIZE, Scene, draw, prop_label
from export.reference.errors import ReferenceModelError
from export.reference.labels import (
    CLOTHING,
    COLOURS,
    EXPERIENCE,
    EXPERIENCE_CAPTIONS,
    GOODS,
    LABELS,
    PROPS,
    RISKS,
    noun,
)
from export.reference.wording import TEXT_LABELS, text, title

_JPEG_QUALITY = 88


@dataclass(frozen=True, slots=True)
class Creative:
    """One drawn ad with everything that is known about it.

    Attributes:
        ad_id: 1..count, in drawing order.
        image: RGB, 160 x 160.
        title, text: what the ad says.
        scene: what the picture shows.
        evident_in: label -> "text", "image" or "both"; labels that do not hold are absent.
    """

    ad_id: int
    image: Image.Image
    title: str
    text: str
    scene: Scene
    evident_in: dict[str, str]

    @property
    def caption(self) -> str:
        """What the picture shows, in words."""
        return caption(self.scene)

    def row(self, image: str) -> dict[str, object]:
        """The creative's line in `ads.jsonl`; `image` is the file's path in the folder."""
        return {
            "ad_id": self.ad_id,
            "image": image,
            "title": self.title,
            "text": self.text,
            "class": self.scene.product,
            "colour": self.scene.colour,
            "caption": self.caption,
            "labels": {label: label in self.evident_in for label in LABELS},
            "evident_in": self.evident_in,
        }


def caption(scene: Scene) -> str:
    """What `scene` shows, in words: "a red dress with a bottle of beer, ..."."""
    article = "an" if scene.colour[0] in "aeiou" else "a"
    words = f"{article} {scene.colour} {noun(scene.product)}"
    beside = [PROPS[prop_label(prop)][prop] for prop in scene.props]
    if beside:
        words += " with " + " and ".join(beside)
    return ", ".join([words, *(EXPERIENCE_CAPTIONS[flaw] for flaw in scene.flaws)])


def generate(count: int, seed: int) -> Iterator[Creative]:
    """Draws `count` creatives.

    Raises: `ReferenceModelError` when `count` or `seed` is negative.
    """
    if count < 0 or seed < 0:
        raise ReferenceModelError(
            f"expected a count and a seed of 0 or more, found {count} and {seed}; "
            "pass e.g. --count 200 --seed 7"
        )
    for number in range(1, count + 1):
        yield _creative(number, np.random.default_rng((seed, number)))


def write(creatives: Iterator[Creative], out: Path) -> Iterator[Creative]:
    """Writes `images/<ad_id>.jpg` and `ads.jsonl` under `out`, yielding each one when it is there.

    Raises: `ReferenceModelError` when `out` is a file or holds an `ads.jsonl` already.
    """
    if out.exists() and not out.is_dir():
        raise ReferenceModelError(f"expected a folder to write to, found the file {out}")
    table = out / "ads.jsonl"
    if table.exists():
        raise ReferenceModelError(f"{table} is there already; name a new folder or remove it")
    (out / "images").mkdir(parents=True, exist_ok=True)
    part = table.with_suffix(".part")
    with part.open("w", encoding="utf-8") as lines:
        for creative in creatives:
            name = f"images/{creative.ad_id:06d}.jpg"
            (out / name).write_bytes(jpeg(creative.image))
            lines.write(json.dumps(creative.row(name), ensure_ascii=False) + "\n")
            yield creative
    part.replace(table)


def jpeg(image: Image.Image) -> bytes:
    """The bytes of `image` as the catalogue stores it."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _creative(number: int, rng: np.random.Generator) -> Creative:
    products = CLOTHING if rng.random() < 0.8 else GOODS
    product = products[int(rng.integers(len(products)))]
    colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
    told: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    if rng.random() < 0.55:
        first = _sample(LABELS, rng)
        where = rng.choice(["text", "image", "both"], p=[0.42, 0.42, 0.16])
        told = (first,) if where != "image" else ()
        shown = (first,) if where != "text" else ()
        if rng.random() < 0.25:
            told = tuple(dict.fromkeys((*told, _sample(TEXT_LABELS, rng))))
    props = tuple(_sample(tuple(PROPS[label]), rng) for label in shown if label in RISKS)
    scene = Scene(product, colour, props, tuple(flaw for flaw in shown if flaw in EXPERIENCE))
    return Creative(
        ad_id=number,
        image=draw(scene, rng),
        title=title(product, colour, rng),
        text=text(product, colour, told, rng),
        scene=scene,
        evident_in={
            label: "both"
            if label in told and label in shown
            else "text"
            if label in told
            else "image"
            for label in LABELS
            if label in told or label in shown
        },
    )


def _sample(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


__all__ = ["SIZE", "Creative", "caption", "generate", "jpeg", "write"]
