"""An encoder of known vectors over a real store, for tests of the index path."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_store import AsyncFeatureStore
from serving.checks.owed import Owed
from serving.encode.pipeline import Encoded
from serving.errors import UnavailableError
from serving.image import DecodedImage, Target
from serving.ingest.content import ContentStore
from serving.ingest.writing import Stores

VERSION = "e1-s1"
D = 8
OPEN = asyncio.Event()
OPEN.set()


class KnownEncoder:
    """Vectors and codes by how many letters the text has."""

    def __init__(self) -> None:
        self.version = VERSION
        self.chunks: list[int] = []
        self.pixels: list[tuple[int, ...]] = []
        self.gates: dict[str | None, asyncio.Event] = {}  # texts that wait

    async def target(self) -> Target:
        return Target(16, 24)

    async def encode(
        self, images: Sequence[DecodedImage | None], texts: Sequence[str | None], /
    ) -> Encoded:
        self.chunks.append(len(texts))
        self.pixels += [image.pixels.shape for image in images if image is not None]
        await self.gates.get(texts[0], OPEN).wait()
        if any(text == "down" for text in texts):
            raise UnavailableError("the model is away")
        size = np.array([[len(text or "")] for text in texts])
        vectors = np.eye(D, dtype=np.float32)[size[:, 0] % D]
        codes = (size + np.arange(6)).astype(np.uint16)
        return Encoded(vectors, codes, np.full((len(texts), 6), 0.5, np.float32), self.version)


def stores_of(client: Any, store: AsyncFeatureStore) -> Stores:
    return Stores(store, ContentStore(client, store.keys), Owed(client, store.keys))
