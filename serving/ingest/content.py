"""An ad's content beside its record: what checks and backfill read; lookups never do.

In: an ad, its vector, codes and thumbnail. Out: keys of ingest's own, in the hash slot of the ad's
record (docs/content_keys.md): a hash `<ns>:c{tag}<id>`, a string `<ns>:t{tag}<id>`, and
`<ns>:d{tag}<id>` for a while after an ad has ended. Each change carries a sequence, given out by
the server, and never replaces a later one: two replicas that change one ad at a time agree.
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
from serving.ingest import content_scripts as scripts
from serving.ingest.ads import Ad

CONTENT, THUMBNAIL, ENDED, LAST = "c", "t", "d", "sequence"
THUMBNAIL_PX = 256  # longer side
JPEG_QUALITY = 85
ENDED_S = 3600  # longer than any change that was begun before an ad ended


@dataclass(frozen=True, slots=True)
class Content:
    """What is kept of one ad.

    vector: float32 (D,) of unit norm. codes: uint16 (6,). thumbnail: JPEG bytes. sequence: of this
    change, from `ContentStore.sequences`.
    """

    ad: Ad
    vector: NDArray[np.float32]
    codes: NDArray[np.uint16]
    version: str
    thumbnail: bytes | None
    sequence: int

    def fields(self) -> dict[str, bytes]:
        """The fields of the content hash, but for the sequence."""
        return {
            "title": self.ad.title.encode(),
            "text": self.ad.text.encode(),
            "sha256": self.ad.content_hash(),
            "embedding": self.vector.astype("<f2").tobytes(),
            "codes": self.codes.astype("<u2").tobytes(),
            "version": self.version.encode(),
        }


@dataclass(frozen=True, slots=True)
class State:
    """The last change of an ad. sequence: 0 without one. live: False once the ad has ended."""

    sequence: int
    live: bool
    sha256: bytes | None
    version: str
    codes: NDArray[np.uint16]  # (6,) while it lives, (0,) otherwise


def thumbnail(image: DecodedImage) -> bytes:
    """A JPEG of at most 256 px a side; blocks for milliseconds."""
    picture = Image.fromarray(image.pixels)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


class ContentStore:
    """Reads and writes content keys; `client` is a redis.asyncio client (plain or cluster).

    All methods take one round trip and raise redis.RedisError.
    """

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def sequences(self, ad_ids: Sequence[int]) -> list[int]:
        """A sequence for one change of each ad, higher than all before it."""
        async with self._client.pipeline(transaction=False) as pipe:
            for ad_id in ad_ids:
                pipe.eval(scripts.NEXT, 1, self._last(ad_id))
            return [int(value) for value in await pipe.execute()]

    async def write(self, contents: Sequence[Content]) -> list[bool]:
        """Replace the content of these ads; False for those that were changed later already."""
        async with self._client.pipeline(transaction=False) as pipe:
            for content in contents:
                fields = [part for pair in content.fields().items() for part in pair]
                picture = content.thumbnail or b""
                keys = self._names(content.ad.ad_id)
                pipe.eval(scripts.WRITE, 3, *keys, content.sequence, picture, *fields)
            return [bool(written) for written in await pipe.execute()]

    async def end(self, ad_id: int, sequence: int) -> bool:
        """Remove the content of an ad; False when it was changed later already."""
        keys = self._names(ad_id)
        return bool(await self._client.eval(scripts.END, 3, *keys, sequence, ENDED_S))

    async def states(self, ad_ids: Sequence[int]) -> list[State]:
        """The last change of each ad."""
        async with self._client.pipeline(transaction=False) as pipe:
            for ad_id in ad_ids:
                content, _, ended = self._names(ad_id)
                pipe.hmget(content, ["sequence", "sha256", "version", "codes"])
                pipe.get(ended)
            found = await pipe.execute()
        return [_state(row, ended) for row, ended in zip(found[::2], found[1::2], strict=True)]

    def _names(self, ad_id: int) -> tuple[bytes, bytes, bytes]:
        return (
            self._keys.content(ad_id, CONTENT),
            self._keys.content(ad_id, THUMBNAIL),
            self._keys.content(ad_id, ENDED),
        )

    def _last(self, ad_id: int) -> bytes:
        return f"{self._keys.namespace}:{LAST}{{{self._keys.tag(ad_id)}}}".encode()


def _state(row: Sequence[bytes | None], ended: bytes | None) -> State:
    sequence, sha256, version, codes = row
    return State(
        sequence=int(sequence or ended or 0),
        live=sha256 is not None,
        sha256=sha256,
        version=(version or b"").decode(),
        codes=np.frombuffer(codes or b"", "<u2").astype(np.uint16),
    )
