"""An ad's content beside its record: what checks and backfill read; lookups never do.

In: an ad, its vector and thumbnail. Out: two keys of ingest's own, in the hash slot of the ad's
record (docs/content_keys.md): a hash `<ns>:c{tag}<id>` and a string `<ns>:t{tag}<id>`.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feature_store.keys import Keys
from serving.image import DecodedImage
from serving.ingest.ads import Ad

CONTENT, THUMBNAIL = "c", "t"
THUMBNAIL_PX = 256  # longer side
JPEG_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Content:
    """What is kept of one ad. vector: float32 (D,) of unit norm; thumbnail: JPEG bytes."""

    ad: Ad
    vector: NDArray[np.float32]
    version: str
    thumbnail: bytes | None

    def fields(self) -> dict[str, bytes]:
        """The fields of the content hash."""
        return {
            "title": self.ad.title.encode(),
            "text": self.ad.text.encode(),
            "sha256": self.ad.content_hash(),
            "embedding": self.vector.astype("<f2").tobytes(),
            "version": self.version.encode(),
        }


def thumbnail(image: DecodedImage) -> bytes:
    """A JPEG of at most 256 px a side; blocks for milliseconds."""
    picture = Image.fromarray(image.pixels)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


class ContentStore:
    """Reads and writes content keys; `client` is a redis.asyncio client (plain or cluster)."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def write(self, contents: Sequence[Content]) -> None:
        """Replace the content of these ads. Raises redis.RedisError."""
        async with self._client.pipeline(transaction=False) as pipe:
            for content in contents:
                ad_id = content.ad.ad_id
                pipe.hset(self._keys.content(ad_id, CONTENT), mapping=content.fields())
                picture = self._keys.content(ad_id, THUMBNAIL)
                if content.thumbnail is None:
                    pipe.delete(picture)
                else:
                    pipe.set(picture, content.thumbnail)
            await pipe.execute()

    async def delete(self, ad_id: int) -> None:
        """Remove the content of an ad. Raises redis.RedisError."""
        async with self._client.pipeline(transaction=False) as pipe:
            for kind in (CONTENT, THUMBNAIL):
                pipe.delete(self._keys.content(ad_id, kind))
            await pipe.execute()
