"""From pictures and texts to vectors and semantic IDs, over any way of reaching the models.

In: decoded images and strings, by position, either side missing. Out: unit vectors, six codes a
row and how sure each code is. Plain async code: the models are behind one callable, which is a
Serve handle in the applications and a bare session in tests and tools.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving import frames
from serving.deadline import Deadline
from serving.encode.text import TextTokenizer, TokenRows
from serving.errors import InvalidContentError, InvalidRequestError
from serving.image import DecodedImage, ImagePool, Target
from serving.tensors import Tensors

Vectors = NDArray[np.float32]

IMAGE, TEXT, SEMANTIC_ID = "image_encoder", "text_encoder", "semantic_id"
MODELS = (IMAGE, TEXT, SEMANTIC_ID)


class Infer(Protocol):
    """Runs the model called `name`: named arrays in, named arrays out."""

    async def __call__(
        self, name: str, tensors: Tensors, deadline: Deadline | None = None, /
    ) -> Tensors: ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """n rows: vectors float32 (n, D) of unit norm, codes uint16 (n, 6), margin float32 (n, 6).

    version names the models that made them: `e<encoder>-s<tokenizer>`.
    """

    vectors: Vectors
    codes: NDArray[np.uint16]
    margin: NDArray[np.float32]
    version: str


@dataclass(frozen=True, slots=True)
class Towers:
    """What the encoder must know of its models: their versions and how their inputs are made.

    target: the image tower's pixels. dimension: D of the vectors. versions: by model name.
    """

    tokenizer: TextTokenizer
    target: Target
    dimension: int
    versions: Mapping[str, str]

    @property
    def version(self) -> str:
        """`e<encoder>-s<tokenizer>`; both towers are named when their versions differ."""
        encoder = ".".join(dict.fromkeys((self.versions[IMAGE], self.versions[TEXT])))
        return f"e{encoder}-s{self.versions[SEMANTIC_ID]}"


class Encoder:
    """The index path's middle: embedding, fusion of the modalities, semantic IDs."""

    def __init__(self, infer: Infer, towers: Towers, images: ImagePool) -> None:
        self._infer = infer
        self._images = images
        self.towers = towers

    @property
    def version(self) -> str:
        """The semantic-ID version of every row that this encoder makes."""
        return self.towers.version

    async def encode(
        self,
        images: Sequence[DecodedImage | None],
        texts: Sequence[str | None],
        deadline: Deadline | None = None,
    ) -> Encoded:
        """Embed n pairs and give each its six codes. Raises ServingError."""
        vectors = await self.embed(images, texts, deadline)
        codes, margin = await self.tokenize(vectors, deadline)
        return Encoded(vectors, codes, margin, self.version)

    async def embed(
        self,
        images: Sequence[DecodedImage | None],
        texts: Sequence[str | None],
        deadline: Deadline | None = None,
    ) -> Vectors:
        """Vectors of n pairs, float32 (n, D): unit(image + text), or the one that is there.

        The image's side of a moving picture is the mean of its frames (`serving.frames`).
        A blank text counts as missing. Raises InvalidContentError, and what the models raise.
        """
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} images and {len(texts)} texts are not pairs")
        pictures = {row: image for row, image in enumerate(images) if image is not None}
        strings = {row: text for row, text in enumerate(texts) if text and text.strip()}
        for row in range(len(images)):
            if row not in pictures and row not in strings:
                raise InvalidContentError(
                    f"row {row}: expected an image or a text that is not blank; found neither"
                )
        seen, read = await asyncio.gather(
            self._image_features(list(pictures.values()), deadline),
            self._text_features(list(strings.values()), deadline),
        )
        both = np.zeros((2, len(images), self.towers.dimension), np.float32)
        both[0, list(pictures)] = seen
        both[1, list(strings)] = read
        return fuse(both[0], both[1])

    async def tokenize(
        self, vectors: Vectors, deadline: Deadline | None = None
    ) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """Codes uint16 (n, 6) and margins float32 (n, 6) of vectors float32 (n, D)."""
        if not len(vectors):
            return np.zeros((0, 6), np.uint16), np.zeros((0, 6), np.float32)
        out = await self._infer(SEMANTIC_ID, {"features": vectors}, deadline)
        return out["codes"].astype(np.uint16), out["margin"].astype(np.float32)

    def check(self, vectors: Vectors) -> None:
        """Raises InvalidRequestError unless vectors are finite rows of this encoder's D."""
        if vectors.ndim != 2 or vectors.shape[1] != self.towers.dimension:
            raise InvalidRequestError(
                f"expected vectors (n, {self.towers.dimension}), found {vectors.shape}"
            )
        if not np.isfinite(vectors).all():
            raise InvalidRequestError("expected finite vectors; found NaN or infinity")

    async def _image_features(
        self, images: Sequence[DecodedImage], deadline: Deadline | None
    ) -> Vectors:
        if not images:
            return np.zeros((0, self.towers.dimension), np.float32)
        pixels = await self._images.fit(images, self.towers.target)
        out = await self._infer(IMAGE, {"pixels": pixels}, deadline)
        features = out["image_features"].astype(np.float32, copy=False)
        return frames.mean(features, [len(image.frames) for image in images])

    async def _text_features(self, texts: Sequence[str], deadline: Deadline | None) -> Vectors:
        features = np.zeros((len(texts), self.towers.dimension), np.float32)
        if texts:
            groups = await asyncio.to_thread(self.towers.tokenizer, texts)
            parts = await asyncio.gather(*(self._read(group, deadline) for group in groups))
            for group, part in zip(groups, parts, strict=True):
                features[group.rows] = part
        return features

    async def _read(self, group: TokenRows, deadline: Deadline | None) -> Vectors:
        tokens: Tensors = {"input_ids": group.input_ids, "attention_mask": group.attention_mask}
        out = await self._infer(TEXT, tokens, deadline)
        return out["text_features"].astype(np.float32, copy=False)


def fuse(image: Vectors, text: Vectors) -> Vectors:
    """unit(image + text), row by row; a row of zeros is a missing modality. (n, D) each -> (n, D)

    Opposite vectors cancel and leave no direction: such a row keeps the image's.
    """
    total = image + text
    norm = np.linalg.norm(total, axis=1, keepdims=True)
    cancelled = norm[:, 0] < 1e-6
    total[cancelled] = image[cancelled]
    norm[cancelled] = np.linalg.norm(image[cancelled], axis=1, keepdims=True)
    np.divide(total, np.maximum(norm, 1e-12), out=total)
    return total
