"""What `/v1/encode` is sent, and what it answers, as bytes.

In: JSON or multipart bodies. Out: pictures' bytes, texts and vectors that are checked; and back,
JSON or rows of float32 or float16.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
from fastapi import Request, Response
from numpy.typing import NDArray
from starlette.datastructures import UploadFile

from serving import http
from serving.encode.pipeline import Encoded, Vectors
from serving.errors import InvalidImageError, InvalidRequestError, UnsupportedMediaTypeError
from serving.form_data import CONTENT_TYPE, form_of
from serving.schema import EmbedRequest, TokenizeRequest, VectorType

MAX_ITEMS = 1000
MAX_VECTORS = 10_000
MAX_TEXT = 20_000
BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pictures (still encoded) and texts by position; None is a missing side. dtype: of answers."""

    images: list[bytes | None]
    texts: list[str | None]
    dtype: VectorType = "float32"


async def read_embed(request: Request) -> Pairs:
    """The body of an embed request: images or texts, not both. Raises ServingError."""
    if http.content_type(request) == CONTENT_TYPE:
        return await _files(request)
    body = await http.json_body(request, EmbedRequest)
    if (body.images is None) == (body.texts is None):
        raise InvalidRequestError("expected either `images` or `texts`; send one of them")
    return replace(_pairs(body.images, body.texts), dtype=body.dtype)


async def read_tokenize(request: Request) -> Pairs | Vectors:
    """The body of a tokenize request: vectors, or pairs. Raises ServingError."""
    body = await http.json_body(request, TokenizeRequest)
    if body.vectors is None:
        if body.images is None and body.texts is None:
            raise InvalidRequestError("expected `vectors`, or `images` and `texts`")
        return _pairs(body.images, body.texts)
    if body.images is not None or body.texts is not None:
        raise InvalidRequestError("expected `vectors` alone, or `images` and `texts` without them")
    if not 1 <= len(body.vectors) <= MAX_VECTORS:
        raise InvalidRequestError(f"expected 1 to {MAX_VECTORS} vectors")
    if len({len(row) for row in body.vectors}) != 1:
        raise InvalidRequestError("expected vectors of one length")
    with np.errstate(over="ignore"):  # infinity is refused with the other impossible values
        return np.asarray(body.vectors, np.float32)


def write_embed(
    vectors: NDArray[np.floating[Any]], origin: Mapping[str, str], *, binary: bool
) -> Response:
    """Vectors as JSON beside `origin` (model, version), or as rows of bytes, little-endian."""
    if binary:
        headers = {f"x-tessera-{name}": value for name, value in origin.items()}
        headers["x-tessera-shape"] = ",".join(map(str, vectors.shape))
        headers["x-tessera-dtype"] = vectors.dtype.name
        raw = vectors.astype(vectors.dtype.newbyteorder("<"), copy=False).tobytes()
        return Response(raw, headers=headers, media_type=BINARY)
    return _json({"vectors": _rows(vectors), **origin})


def write_tokenize(encoded: Encoded) -> Response:
    """Codes, margins and the semantic-ID version as JSON."""
    return _json(
        {
            "codes": _rows(encoded.codes),
            "margin": _rows(encoded.margin),
            "version": encoded.version,
        }
    )


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array)


def _json(document: dict[str, Any]) -> Response:
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")


def _pairs(images: Sequence[str | None] | None, texts: Sequence[str | None] | None) -> Pairs:
    count = len(images if images is not None else texts or ())
    if not 1 <= count <= MAX_ITEMS:
        raise InvalidRequestError(f"expected 1 to {MAX_ITEMS} items, found {count}")
    if images is not None and texts is not None and len(images) != len(texts):
        raise InvalidRequestError(
            f"{len(images)} images and {len(texts)} texts: expected pairs by position; send null "
            "for a missing side"
        )
    for row, text in enumerate(texts or ()):
        if text is not None and len(text) > MAX_TEXT:
            raise InvalidRequestError(f"texts[{row}]: expected at most {MAX_TEXT} characters")
    return Pairs(
        [_decode(row, image) for row, image in enumerate(images or [None] * count)],
        list(texts or [None] * count),
    )


def _decode(row: int, image: str | None) -> bytes | None:
    if image is None:
        return None
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidImageError(f"images[{row}]: expected base64: {error}") from error


async def _files(request: Request) -> Pairs:
    async with form_of(request, files=MAX_ITEMS) as form:
        parts = form.multi_items()
        files = [await part.read() for _, part in parts if isinstance(part, UploadFile)]
    fields = {name: value for name, value in parts if isinstance(value, str)}
    if set(fields) - {"dtype"}:
        raise UnsupportedMediaTypeError("expected image files and `dtype`; send texts as JSON")
    if not files:
        raise InvalidRequestError("expected at least one image file")
    asked = http.validate(EmbedRequest, fields)
    return Pairs(list(files), [None] * len(files), asked.dtype)
