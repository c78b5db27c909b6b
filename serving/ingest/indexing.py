"""The index path: decode, encode, keep the content, write the record.

In: `Ad`s. Out: for each what is now in the store, or the error that kept it out; a bad ad never
holds up its neighbours. No Ray here: the encoder reaches its models through a callable.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from feature_store import Flag
from serving.encode.pipeline import Encoded
from serving.errors import ServingError
from serving.image import DecodedImage, ImagePool, Target, fitted
from serving.ingest.ads import Ad
from serving.ingest.content import THUMBNAIL_PX, Content, thumbnail
from serving.ingest.writing import Writer
from serving.lookup.rows import flag_names

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
        """The JSON of the answer: no verdict is made here, `flags` say what an earlier one said."""
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

    async def target(self) -> Target:
        """What pictures are fitted to."""

    async def encode(
        self, images: Sequence[DecodedImage | None], texts: Sequence[str | None], /
    ) -> Encoded:
        """Vectors, codes and margins of n pairs."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is left of a picture once it is decoded: pixels for the encoder and a small JPEG."""

    image: DecodedImage
    thumbnail: bytes


class Indexer:
    """Brings ads into one store through one encoder."""

    def __init__(self, encoder: Encodes, writer: Writer, images: ImagePool) -> None:
        self._encoder = encoder
        self._images = images
        self.writer = writer

    async def index(self, ads: Sequence[Ad]) -> list[Indexed | ServingError]:
        """Index every ad, chunk by chunk; one result an ad, in order."""
        try:
            sequences = await self.writer.sequences([ad.ad_id for ad in ads])
        except ServingError as error:
            return [error] * len(ads)
        results: list[Indexed | ServingError] = []
        for at in range(0, len(ads), CHUNK):
            results += await self._index_chunk(ads[at : at + CHUNK], sequences[at : at + CHUNK])
        return results

    async def index_one(self, ad: Ad) -> Indexed:
        """Index one ad; raises the ServingError that keeps it out."""
        result = (await self.index([ad]))[0]
        if isinstance(result, ServingError):
            raise result
        return result

    async def _index_chunk(
        self, ads: Sequence[Ad], sequences: Sequence[int]
    ) -> list[Indexed | ServingError]:
        pictures = await asyncio.gather(*(self._decode(ad) for ad in ads))
        results: dict[int, Indexed | ServingError] = {}
        good: list[tuple[int, Picture | None]] = []
        for row, picture in enumerate(pictures):
            if isinstance(picture, ServingError):
                results[row] = picture
            else:
                good.append((row, picture))
        rows = [row for row, _ in good]
        try:
            found: Sequence[Indexed | ServingError] = await self._write(
                [ads[row] for row in rows],
                [picture for _, picture in good],
                [sequences[row] for row in rows],
            )
        except ServingError as error:
            found = [error] * len(good)
        results.update(zip(rows, found, strict=True))
        return [results[row] for row in range(len(ads))]

    async def _decode(self, ad: Ad) -> Picture | ServingError | None:
        """A picture in the two sizes that are needed; the whole of it lives in a thread alone."""
        if ad.image is None:
            return None
        try:
            target = await self._encoder.target()

            def reduce(image: DecodedImage) -> Picture:
                return Picture(fitted(image, target), thumbnail(image))

            side = max(*target.size, THUMBNAIL_PX)
            return await self._images.run(ad.image, reduce, size=(side, side))
        except ServingError as error:
            return error

    async def _write(
        self, ads: Sequence[Ad], pictures: Sequence[Picture | None], sequences: Sequence[int]
    ) -> list[Indexed | ServingError]:
        if not ads:
            return []
        images = [None if picture is None else picture.image for picture in pictures]
        encoded = await self._encoder.encode(images, [ad.words or None for ad in ads])
        kept = await self.writer.write(
            [
                Content(
                    ad,
                    encoded.vectors[row],
                    encoded.codes[row],
                    encoded.version,
                    None if picture is None else picture.thumbnail,
                    sequences[row],
                )
                for row, (ad, picture) in enumerate(zip(ads, pictures, strict=True))
            ]
        )
        return [
            Indexed(ad.ad_id, encoded.version, codes, [round(m, 6) for m in margin], flags)
            for ad, codes, margin, flags in zip(
                ads, encoded.codes.tolist(), encoded.margin.tolist(), kept, strict=True
            )
        ]
