"""Video creatives: which frames of a moving picture are seen, and how they become one vector.

The rule (docs/decisions/0096): up to eight frames, evenly spaced from the first to the last, are
embedded each by itself; the vector is the mean of theirs, made unit again, and the semantic IDs are
those of that vector. A still picture is a film of one frame, and its vector is left bit for bit.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FRAMES = 8
# Several pictures in a TIFF are pages, not frames.
_MOVING = ("GIF", "WEBP", "PNG", "AVIF")


def chosen(image: Image.Image, max_pixels: int) -> list[int]:
    """The frames of an opened file to look at, in order, the first one always.

    Decoders must decode every frame before the one asked for, so only so many count as together
    have `max_pixels`: a small file cannot keep a thread busy for minutes.
    """
    if image.format not in _MOVING:
        return [0]
    width, height = image.size
    count = max(1, min(getattr(image, "n_frames", 1), max_pixels // (width * height)))
    return [int(at) for at in np.linspace(0, count - 1, min(count, FRAMES)).round()]


def mean(features: NDArray[np.float32], frames: Sequence[int]) -> NDArray[np.float32]:
    """Unit rows of all frames, float32 (sum of `frames`, D) -> one unit row a picture, (n, D).

    Args:
        frames: how many rows each of n pictures has, at least one. Frames that cancel leave no
            direction: the first one then stands for the picture.
    """
    starts = np.cumsum([0, *frames])[:-1]
    rows: NDArray[np.float32] = features[starts].copy()
    for row, (start, count) in enumerate(zip(starts, frames, strict=True)):
        if count > 1:
            total = features[start : start + count].sum(0, dtype=np.float32)
            norm = float(np.linalg.norm(total))
            if norm > 1e-6:
                rows[row] = total / norm
    return rows
