"""What is judged: an ad sent along, or one that ingest keeps the content of.

In: ids or inline ads. Out: `Subject`s with a content hash, or the error that keeps one out; stored
ads are read in one round trip, their pictures only when somebody has to look at them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from feature_store.keys import Keys
from serving.errors import NotFoundError, ServingError, UnavailableError
from serving.ingest.ads import Ad
from serving.ingest.content import CONTENT, THUMBNAIL
from serving.ingest.content_scripts import PICTURE


@dataclass(frozen=True, slots=True)
class Subject:
    """One creative. content: SHA-256 of image, title and text. ad_id: of a stored one.

    vector: (D,) float32, unit; as ingest stored it. encoder: what made it, `e<encoder>`.
    """

    content: bytes
    title: str
    text: str
    ad_id: int | None = None
    picture: bytes | None = None  # of one that was sent along
    vector: NDArray[np.float32] | None = field(default=None, compare=False)
    encoder: str = ""


def inline(ad: Ad) -> Subject:
    """An ad that came with the request."""
    return Subject(ad.content_hash(), ad.title, ad.text, None, ad.image)


class Subjects:
    """Reads what ingest keeps; `client` is a redis.asyncio client (plain or cluster)."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def read(self, ad_ids: Sequence[int]) -> list[Subject | ServingError]:
        """Stored ads in order; NotFoundError for one without content. Raises UnavailableError."""
        fields = ["sha256", "title", "text", "embedding", "version"]
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for ad_id in ad_ids:
                    pipe.hmget(self._keys.content(ad_id, CONTENT), fields)
                rows = await pipe.execute()
        except RedisError as error:
            raise UnavailableError(f"the feature store failed: {error}") from error
        return [_stored(ad_id, *row) for ad_id, row in zip(ad_ids, rows, strict=True)]

    async def picture(self, subject: Subject) -> bytes | None:
        """The encoded image of a subject, None when it has none.

        Raises UnavailableError, also when the ad has other content by now: its picture would not
        be that of the words that were read, nor of the key that the verdict gets.
        """
        if subject.ad_id is None or subject.picture is not None:
            return subject.picture
        keys = [self._keys.content(subject.ad_id, kind) for kind in (CONTENT, THUMBNAIL)]
        found: tuple[bytes | None, bytes | None]
        try:
            found = await self._client.eval(PICTURE, len(keys), *keys)
        except RedisError as error:
            raise UnavailableError(f"the feature store failed: {error}") from error
        content, picture = found
        if content != subject.content:
            raise UnavailableError(f"ad {subject.ad_id} has changed meanwhile; ask again")
        return picture


def _stored(
    ad_id: int,
    sha256: bytes | None,
    title: bytes | None,
    text: bytes | None,
    embedding: bytes | None,
    version: bytes | None,
) -> Subject | ServingError:
    if not sha256:
        return NotFoundError(f"ad {ad_id} has no content here; PUT it, or send it in `ads`")
    vector = np.frombuffer(embedding, "<f2").astype(np.float32) if embedding else None
    encoder = (version or b"").decode().partition("-s")[0]
    words = ((title or b"").decode(), (text or b"").decode())
    return Subject(sha256, *words, ad_id, None, vector, encoder)
