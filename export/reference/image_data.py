"""What the image tower learns from, in memory: photos, and drawn creatives with their truth."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from export.reference.catalogue import generate
from export.reference.labels import CLOTHING, COLOURS, GOODS, LABELS
from export.reference.photos import PhotoFolder, read_squashed
from export.reference.progress import progress
from export.reference.text_tower import embed_texts

PRODUCTS = CLOTHING + GOODS
_SOURCE_SIZE = 128  # side of the squeezed pictures that windows are cut from


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """Photos ready for cropping: uint8 (n, S, S, 3), height over width (n,), class (n,)."""

    squares: Tensor
    aspect: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class DrawnSet:
    """Drawn creatives: pixels, caption rows (n, 384), caption number, class, colour, labels."""

    squares: Tensor
    captions: Tensor
    caption_id: Tensor
    product: Tensor
    colour: Tensor
    flags: Tensor


def load_photos(folder: PhotoFolder) -> PhotoSet:
    """Reads every photo of `folder`, squeezed to squares."""
    squares = np.empty((len(folder.files), _SOURCE_SIZE, _SOURCE_SIZE, 3), dtype=np.uint8)
    aspect = np.empty(len(folder.files), dtype=np.float32)
    with progress("read photos", len(folder.files)) as advance:
        for row, (square, ratio) in enumerate(read_squashed(folder.files, _SOURCE_SIZE)):
            squares[row], aspect[row] = square, ratio
            advance()
    return PhotoSet(
        torch.from_numpy(squares), torch.from_numpy(aspect), torch.from_numpy(folder.labels)
    )


def draw_creatives(count: int, seed: int) -> DrawnSet:
    """Draws `count` creatives and embeds their captions."""
    squares = np.empty((count, _SOURCE_SIZE, _SOURCE_SIZE, 3), dtype=np.uint8)
    captions: list[str] = []
    product = np.empty(count, dtype=np.int64)
    colour = np.empty(count, dtype=np.int64)
    flags = np.zeros((count, len(LABELS)), dtype=np.float32)
    with progress("draw creatives", count) as advance:
        for row, creative in enumerate(generate(count, seed)):
            squares[row] = np.asarray(creative.image.resize((_SOURCE_SIZE, _SOURCE_SIZE)))
            captions.append(creative.caption)
            product[row] = PRODUCTS.index(creative.scene.product)
            colour[row] = list(COLOURS).index(creative.scene.colour)
            flags[row] = [creative.evident_in.get(name) in ("image", "both") for name in LABELS]
            advance()
    distinct = sorted(set(captions))
    rows = embed_texts(distinct)
    index = np.array([distinct.index(words) for words in captions], dtype=np.int64)
    return DrawnSet(
        torch.from_numpy(squares),
        torch.from_numpy(rows[index]),
        *(torch.from_numpy(array) for array in (index, product, colour, flags)),
    )
