"""Photos in class folders, and the one rule by which a picture becomes 96 x 96 pixels.

The rule (metadata `resize` of the bundle): turn as EXIF says, convert to RGB, resize with a
bicubic, anti-aliased filter so that the shorter side is 96, cut the middle 96 x 96. Training,
`accuracy` and serving all use it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from export.reference.errors import ReferenceModelError

RESIZE_RULE = "exif-transpose, RGB, shorter side to 96 (bicubic, antialiased), centre crop 96x96"
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PhotoFolder:
    """A folder of `<class>/<name>.jpg`.

    Attributes:
        classes: folder names, sorted.
        files: every picture, sorted by its path.
        labels: int64 (n,), index into `classes`.
    """

    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: NDArray[np.int64]


def open_folder(root: Path) -> PhotoFolder:
    """Lists the pictures under `root`.

    Raises: `ReferenceModelError` when there is no such folder or nothing in it.
    """
    if not root.is_dir():
        raise ReferenceModelError(f"expected a folder of class folders at {root}, found none")
    found = [
        (folder.name, file)
        for folder in sorted(root.iterdir())
        if folder.is_dir()
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in _SUFFIXES
    ]
    if not found:
        raise ReferenceModelError(
            f"expected pictures at {root}/<class>/<name>.jpg, found none; name another folder"
        )
    classes = tuple(sorted({name for name, _ in found}))
    labels = np.array([classes.index(name) for name, _ in found], dtype=np.int64)
    return PhotoFolder(classes, tuple(file for _, file in found), labels)


def read_rgb(file: Path) -> Image.Image:
    """The picture, upright and in RGB.

    Raises: `ReferenceModelError` when the file is not a whole picture.
    """
    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ReferenceModelError(f"{file} is not a picture that can be read: {error}") from error


def cut(image: Image.Image, size: int = 96) -> Pixels:
    """Applies the rule: RGB image -> uint8 (size, size, 3)."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def read_squashed(files: tuple[Path, ...], size: int) -> Iterator[tuple[Pixels, float]]:
    """Each picture squeezed to a square uint8 (size, size, 3), with its height over its width.

    Training cuts its own windows out of these and needs the proportions to undo the squeeze.
    """
    for file in files:
        image = read_rgb(file)
        square = image.resize((size, size), Image.Resampling.BICUBIC)
        yield np.asarray(square), image.height / image.width
