"""What an advertiser sends, checked: from form fields and manifest lines to `Ad`s.

In: strings and upload bytes. Out: `Ad` records, or an error that names the field.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from pydantic import ValidationError

from serving.errors import InvalidContentError, InvalidRequestError, ServingError
from serving.lookup.rows import parse_id
from serving.schema import MAX_BATCH_ITEMS, BatchItem

MAX_TITLE = 1_000  # characters
MAX_TEXT = 20_000


@dataclass(frozen=True, slots=True)
class Ad:
    """One creative as it was sent; `image` are the file's bytes."""

    ad_id: int
    title: str
    text: str
    image: bytes | None

    @property
    def words(self) -> str:
        """What the text tower reads: title and text in one line of thought."""
        return " ".join(part for part in (self.title.strip(), self.text.strip()) if part)

    def content_hash(self) -> bytes:
        """SHA-256 (32 bytes) of image, title and text, each with its length before it."""
        digest = hashlib.sha256()
        for part in (self.image or b"", self.title.encode(), self.text.encode()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a manifest, numbered from 1: the ad, or why it is none."""

    number: int
    ad_id: int | None
    ad: Ad | ServingError


def make_ad(ad_id: int, title: str, text: str, image: bytes | None) -> Ad:
    """An `Ad` that has something to encode. Raises InvalidContentError."""
    for name, value, most in (("title", title, MAX_TITLE), ("text", text, MAX_TEXT)):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidContentError(
                f"{name}: expected Unicode text, found a lone surrogate"
            ) from error
        if len(value) > most:
            raise InvalidContentError(
                f"{name}: expected at most {most:,} characters, found {len(value):,}"
            )
    if image is None and not title.strip() and not text.strip():
        raise InvalidContentError("expected an image, a title or a text; found none of them")
    return Ad(ad_id, title, text, image)


def parse_manifest(manifest: bytes, images: Mapping[str, bytes]) -> list[Line]:
    """The lines of a batch's manifest with the images they name.

    A line that is wrong becomes a `Line` with its error; InvalidRequestError when the manifest as
    a whole is empty or has more than 1,000 lines.
    """
    rows = [(n, row) for n, row in enumerate(manifest.splitlines(), 1) if row.strip()]
    if not 1 <= len(rows) <= MAX_BATCH_ITEMS:
        raise InvalidRequestError(
            f"manifest: expected 1-{MAX_BATCH_ITEMS:,} lines, found {len(rows):,}"
        )
    seen: dict[int, int] = {}
    return [_line(number, row, images, seen) for number, row in rows]


def _line(number: int, row: bytes, images: Mapping[str, bytes], seen: dict[int, int]) -> Line:
    ad_id = None
    try:
        item = _item(number, row)
        ad_id = parse_id(item.ad_id)
        if (first := seen.setdefault(ad_id, number)) != number:
            raise InvalidContentError(f"line {number}: ad {ad_id} is on line {first} already")
        if item.image is not None and item.image not in images:
            raise InvalidContentError(f"line {number}: no part of the form is named {item.image!r}")
        image = images[item.image] if item.image is not None else None
        return Line(number, ad_id, make_ad(ad_id, item.title or "", item.text or "", image))
    except ServingError as error:
        return Line(number, ad_id, error)


def _item(number: int, row: bytes) -> BatchItem:
    try:
        value = orjson.loads(row)
        if not isinstance(value, dict):
            raise InvalidRequestError(
                f"line {number}: expected an object, found {type(value).__name__}"
            )
        return BatchItem.model_validate(value)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"line {number}: not valid JSON: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidRequestError(f"line {number}: {where}: {first['msg']}") from error
