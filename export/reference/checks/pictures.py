"""Examples with what the image tower makes of their pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.reference.checks.examples import Example, image_examples, photo_example
from export.reference.checks.training import Seen
from export.reference.image_encoder import ImageEncoder
from export.reference.photos import cut, open_folder, read_rgb
from export.reference.vectors import image_rows


def drawn(encoder: ImageEncoder, count: int, seed: int, silent: float) -> Seen:
    """Drawn creatives and their features; a share `silent` has words that say nothing."""
    examples: list[Example] = []

    def pixels() -> Iterator[NDArray[np.uint8]]:
        for creative, example in image_examples(count, seed, silent):
            examples.append(example)
            yield cut(creative.image)

    rows = image_rows(encoder, pixels(), count)
    return Seen(examples, torch.from_numpy(rows))


def photographed(encoder: ImageEncoder, folder: Path, seed: int) -> Seen:
    """Photos of class folders and their features."""
    photos = open_folder(folder)
    pixels = (cut(read_rgb(file)) for file in photos.files)
    rows = image_rows(encoder, pixels, len(photos.files))
    examples = [
        photo_example(photos.classes[label], photos.classes, seed + number)
        for number, label in enumerate(photos.labels.tolist())
    ]
    return Seen(examples, torch.from_numpy(rows))
