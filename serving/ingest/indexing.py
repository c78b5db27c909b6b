"""The index path: decode, encode, keep the content, write the record.

In: `Ad`s. Out: for each what is now in the store, or the error that kept it out; a bad ad never
holds up its neighbours. No Ray here: the encoder reaches its models through a callable.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from redis.exceptions import RedisError

from feature_store import AsyncFeatureStore, Flag
from feature_store.errors import FeatureStoreError
from serving.encode.pipeline import Encoded
from serving.errors import ServingError, UnavailableError
from serving.image import DecodedImage, ImagePool
from serving.ingest.ads import Ad
from serving.ingest.content import Content, ContentStore, thumbnail
from serving.lookup.rows import flag_names

_Result = TypeVar("_Result")
CHUNK = 32  # ads that are decoded, encoded and written together


@dataclass(frozen=True, slots=True)
class Indexed:
    """An ad that is in the store: its codes and margins (6,) and its flags."""

    ad_id: int
    version: str
    codes: list[int]
    margin: list[float]
    flags: Flag

    def answer(self) -> dict[str, Any]:
        """The JSON of the answer. Without checks no verdict is known: null, flag PENDING."""
        return {
            "ad_id": self.ad_id,
            "version": self.version,
            "codes": self.codes,
            "margin": self.margin,
            "flags": flag_names(self.flags),
            "risk": {"verdict": None, "categories": {}},
        }


class Encodes(Protocol):
    """An encoder of pairs, near or behind handles."""

    async def encode(
        self, images: Sequence[DecodedImage | None], texts: Sequence[str | None], /
    ) -> Encoded:
        """Vectors, codes and margins of n pairs."""


class Owes(Protocol):
    """Where risk verdicts are asked for; nobody waits for them here."""

    async def add(self, ad_ids: Sequence[int], /) -> None:
        """Owe verdicts for ads whose content is written. Raises redis.RedisError."""

    async def remove(self, ad_id: int, /) -> None:
        """The ad has ended. Raises redis.RedisError."""


class Indexer:
    """Brings ads into one store through one encoder."""

    def __init__(
        self,
        encoder: Encodes,
        store: AsyncFeatureStore,
        contents: ContentStore,
        images: ImagePool,
        owed: Owes,
    ) -> None:
        self._owed = owed
        self._encoder = encoder
        self._store = store
        self._contents = contents
        self._images = images
        self._active: str | None = None

    async def index(self, ads: Sequence[Ad]) -> list[Indexed | ServingError]:
        """Index every ad, chunk by chunk; one result an ad, in order."""
        results: list[Indexed | ServingError] = []
        for start in range(0, len(ads), CHUNK):
            results += await self._index_chunk(ads[start : start + CHUNK])
        return results

    async def index_one(self, ad: Ad) -> Indexed:
        """Index one ad; raises the ServingError that keeps it out."""
        result = (await self.index([ad]))[0]
        if isinstance(result, ServingError):
            raise result
        return result

    async def ready(self) -> None:
        """Raises UnavailableError while the store does not answer."""
        await _stored(self._store.versions())

    async def block(self, ad_id: int, reason: str) -> int:
        """Take an ad down; how many replicas of the store have it."""
        return (await _stored(self._store.block([ad_id], reason, source="human"))).replicated

    async def unblock(self, ad_id: int) -> int:
        """Lift a human's mark; how many replicas of the store have it."""
        return (await _stored(self._store.unblock([ad_id], source="human"))).replicated

    async def delete(self, ad_id: int) -> None:
        """The ad has ended: its record goes first, so that no lookup finds half of it."""
        await _stored(self._owed.remove(ad_id))  # a verdict on its way counts no more
        await _stored(self._store.delete([ad_id]))
        await _stored(self._contents.delete(ad_id))

    async def _index_chunk(self, ads: Sequence[Ad]) -> list[Indexed | ServingError]:
        images = await asyncio.gather(*(self._decode(ad) for ad in ads))
        good = [row for row, image in enumerate(images) if not isinstance(image, ServingError)]
        results: list[Indexed | ServingError | None] = [
            image if isinstance(image, ServingError) else None for image in images
        ]
        try:
            found = await self._write([ads[row] for row in good], [images[row] for row in good])
        except ServingError as error:
            found = [error] * len(good)
        for row, result in zip(good, found, strict=True):
            results[row] = result
        return [result for result in results if result is not None]

    async def _decode(self, ad: Ad) -> DecodedImage | ServingError | None:
        if ad.image is None:
            return None
        try:
            return await self._images.decode(ad.image)
        except ServingError as error:
            return error

    async def _write(self, ads: Sequence[Ad], images: Sequence[Any]) -> list[Any]:
        if not ads:
            return []
        encoded = await self._encoder.encode(images, [ad.words or None for ad in ads])
        pictures = await asyncio.gather(
            *(asyncio.to_thread(thumbnail, image) if image else _none() for image in images)
        )
        # Content first: whoever finds a record finds its content too.
        await _stored(
            self._contents.write(
                [
                    Content(ad, vector, encoded.version, picture)
                    for ad, vector, picture in zip(ads, encoded.vectors, pictures, strict=True)
                ]
            )
        )
        # Before the record: one that says PENDING is always owed its verdict.
        await _stored(self._owed.add([ad.ad_id for ad in ads]))
        ids = np.array([ad.ad_id for ad in ads], np.int64)
        flags = np.full(len(ads), Flag.PENDING, np.uint16)
        await _stored(self._store.write(ids, encoded.codes, flags, version=encoded.version))
        # Again: the verdict may have been settled on the record that this one replaces.
        await _stored(self._owed.add([ad.ad_id for ad in ads]))
        await self._activate(encoded.version)
        return [
            Indexed(ad.ad_id, encoded.version, codes, [round(m, 6) for m in margin], Flag.PENDING)
            for ad, codes, margin in zip(
                ads, encoded.codes.tolist(), encoded.margin.tolist(), strict=True
            )
        ]

    async def _activate(self, version: str) -> None:
        """Make the first version of an empty store the active one; later ones wait for coverage."""
        if self._active is not None:
            return
        versions = await _stored(self._store.versions())
        self._active = next((v.name for v in versions if v.state == "active"), None)
        if self._active is None:
            await _stored(self._store.activate(version))
            self._active = version


async def _none() -> None:
    return None


async def _stored(call: Awaitable[_Result]) -> _Result:
    """The result of a store call; its failures as UnavailableError."""
    try:
        return await call
    except (FeatureStoreError, RedisError) as error:
        raise UnavailableError(f"the feature store failed: {error}") from error
