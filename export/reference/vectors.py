"""The reference encoders' vectors of creatives, photos and titles: what the tokenizer learns on.

Every item gives up to three neighbouring rows, as serving would make them: image and text fused by
unit(image + text), the image alone, the text alone.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.reference.catalogue import generate
from export.reference.errors import ReferenceModelError
from export.reference.image_encoder import ImageEncoder
from export.reference.labels import noun
from export.reference.photos import cut, open_folder, read_rgb
from export.reference.progress import progress
from export.reference.text_tower import embed_texts

Rows = NDArray[np.float32]


def fuse(image: Rows, text: Rows) -> Rows:
    """Unit(image + text): unit rows float32 (n, D) twice -> (n, D)."""
    both = image + text
    fused: Rows = both / np.linalg.norm(both, axis=1, keepdims=True).clip(1e-12)
    return fused


def image_rows(encoder: ImageEncoder, pixels: Iterator[NDArray[np.uint8]], count: int) -> Rows:
    """Features of `count` cut pictures: float32 (count, 384)."""
    rows = np.empty((count, 384), dtype=np.float32)
    done = 0
    with progress("embed pictures", count) as advance, torch.inference_mode():
        for batch in _batches(pixels, 64):
            rows[done : done + len(batch)] = encoder(torch.from_numpy(batch)).numpy()
            done += len(batch)
            advance(steps=len(batch))
    return rows


def catalogue_rows(encoder: ImageEncoder, count: int, seed: int) -> Rows:
    """Three rows for each of `count` drawn creatives: fused, image, title and text."""
    words: list[str] = []

    def pixels() -> Iterator[NDArray[np.uint8]]:
        for creative in generate(count, seed):
            words.append(f"{creative.title}. {creative.text}")
            yield cut(creative.image)

    image = image_rows(encoder, pixels(), count)
    return _views(image, embed_texts(words))


def photo_rows(encoder: ImageEncoder, folder: Path) -> Rows:
    """Three rows for each photo of class folders: fused with its class, image, class."""
    photos = open_folder(folder)
    image = image_rows(encoder, (cut(read_rgb(file)) for file in photos.files), len(photos.files))
    names = [f"{name}" for name in photos.classes] + [noun(name) for name in photos.classes]
    texts = embed_texts(names)
    # Folder name and everyday name by turns: users write either.
    label = photos.labels + len(photos.classes) * (np.arange(len(photos.labels)) % 2)
    return _views(image, texts[label])


def title_rows(file: Path) -> Rows:
    """Stored embeddings (.npy, n x 384) or titles to embed (.jsonl with `title`).

    Raises: `ReferenceModelError` when the file is neither.
    """
    if not file.is_file():
        raise ReferenceModelError(f"expected titles at {file}, found no such file")
    if file.suffix == ".npy":
        rows = load_rows(file)
        if rows.shape[1] != 384:
            raise ReferenceModelError(f"{file}: expected rows of 384 values, found {rows.shape}")
        return rows
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        titles = [str(json.loads(line)["title"]) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise ReferenceModelError(f'{file}: expected {{"title": ...}} a line: {error!r}') from error
    return embed_texts(titles)


def load_rows(file: Path) -> Rows:
    """Reads embeddings and makes their rows unit: float32 (n, D), D at least 8.

    Raises: `ReferenceModelError` when the file is not an array of finite, non-zero rows.
    """
    try:
        rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ReferenceModelError(f"expected an .npy array at {file}: {error}") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] < 8:
        shape = getattr(rows, "shape", "an archive")
        raise ReferenceModelError(f"{file}: expected rows of 8 values or more, found {shape}")
    if rows.dtype.kind != "f":
        raise ReferenceModelError(f"{file}: expected floating-point values, found {rows.dtype}")
    rows = rows.astype(np.float32)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norm).all() or not (norm > 0).all():
        bad = int(np.flatnonzero(~(np.isfinite(norm) & (norm > 0)))[0])
        raise ReferenceModelError(f"{file}: row {bad} is zero or not finite; embed it again")
    unit: Rows = rows / norm
    return unit


def _views(image: Rows, text: Rows) -> Rows:
    """(n, D) twice -> (3n, D): an item's three rows stay together."""
    return np.stack([fuse(image, text), image, text], axis=1).reshape(-1, image.shape[1])


def _batches(items: Iterator[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    batch: list[NDArray[np.uint8]] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)
