"""Ray Serve's side of encoding: `POST /v1/encode/embed` and `POST /v1/encode/tokenize`.

In: an `AppArgs` dictionary. Out: one deployment, `encode`. It decodes pictures in threads of its
own and reaches the models through handles.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from ray import serve

from serving import bundles, http, unserved
from serving.config import AppArgs
from serving.cores import available_cores
from serving.deadline import from_header
from serving.encode import forms
from serving.encode.handles import ServedEncoder
from serving.encode.pipeline import IMAGE, TEXT
from serving.errors import InvalidImageError
from serving.image import DecodedImage, ImagePool
from serving.replica import Replica, bind
from serving.schema import (
    EXAMPLE_IMAGE,
    EmbedRequest,
    EmbedResponse,
    TokenizeRequest,
    TokenizeResponse,
)

BODY_LIMIT_BYTES = 64 << 20


class Encodes:
    """Decodes and encodes what requests hold."""

    def __init__(self, encoder: ServedEncoder, images: ImagePool) -> None:
        self._images = images
        self.encoder = encoder

    async def decode(self, images: Sequence[bytes | None]) -> list[DecodedImage | None]:
        """Every picture, in order; InvalidImageError names the row."""
        if all(data is None for data in images):
            return [None] * len(images)
        target = await self.encoder.target()

        async def one(row: int, data: bytes | None) -> DecodedImage | None:
            try:
                return None if data is None else await self._images.decode(data, target)
            except InvalidImageError as error:
                raise InvalidImageError(f"image {row}: {error.detail}") from error

        return list(await asyncio.gather(*(one(row, data) for row, data in enumerate(images))))


@serve.deployment(name="encode")
@serve.ingress()
@unserved.complete
class EncodeDeployment:
    """One replica of encode."""

    async def __init__(self, args: dict[str, Any]) -> None:  # type: ignore[misc] # Serve awaits it
        self._replica = Replica.open(AppArgs.model_validate(args))
        settings = self._replica.settings
        images = ImagePool(available_cores(), max_pixels=settings.image_pixels)
        self._encodes = Encodes(
            ServedEncoder(bundles.repository(settings), images, "encode"), images
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create(self._replica, self._encodes)


def create(replica: Replica, encodes: Encodes) -> FastAPI:
    """The HTTP app of encode."""
    app = http.create_app(replica, body_limit_bytes=BODY_LIMIT_BYTES, ready=encodes.encoder.ready)
    rows = replica.metrics.counter("tessera_encoded_rows", "rows encoded", ("route",))
    read = [http.requires("read")]

    @app.post(
        "/embed",
        dependencies=read,
        responses={200: {"model": EmbedResponse, "content": {forms.BINARY: {}}}},
        openapi_extra=_document(EmbedRequest, _EMBED_EXAMPLES, _FILES),
    )
    async def embed(request: Request) -> Response:
        """Unit vectors of images or texts, which lie in one space.

        `Accept: application/octet-stream` answers with rows of `dtype`, little-endian; their
        shape, dtype, model and version are then in the headers `x-tessera-*`.
        """
        deadline = from_header(request.headers.get("x-request-timeout-seconds"))
        pairs = await forms.read_embed(request)
        images = await encodes.decode(pairs.images)
        vectors, towers = await encodes.encoder.embed(images, pairs.texts, deadline)
        rows.inc(len(vectors), tags={"route": "embed"})
        model = TEXT if pairs.images[0] is None else IMAGE
        origin = {"model": model, "version": towers.versions[model]}
        given = vectors.astype(pairs.dtype, copy=False)
        return forms.write_embed(given, origin, binary=http.accepts(request, forms.BINARY))

    @app.post(
        "/tokenize",
        dependencies=read,
        responses={200: {"model": TokenizeResponse}},
        openapi_extra=_document(TokenizeRequest, _TOKENIZE_EXAMPLES),
    )
    async def tokenize(request: Request) -> Response:
        """Semantic IDs of vectors, or of images and texts as pairs by position (null: missing)."""
        deadline = from_header(request.headers.get("x-request-timeout-seconds"))
        asked = await forms.read_tokenize(request)
        if isinstance(asked, forms.Pairs):
            images = await encodes.decode(asked.images)
            encoded = await encodes.encoder.encode(images, asked.texts, deadline)
        else:
            encoded = await encodes.encoder.tokenize(asked, deadline)
        rows.inc(len(encoded.codes), tags={"route": "tokenize"})
        return forms.write_tokenize(encoded)

    return app


_EMBED_EXAMPLES = {
    "texts": {"texts": ["red shoes", "a blue hat"]},
    "images": {"images": [EXAMPLE_IMAGE], "dtype": "float16"},
}
_TOKENIZE_EXAMPLES = {
    "texts": {"texts": ["red shoes"]},
    "pairs": {"images": [EXAMPLE_IMAGE, None], "texts": ["red shoes", "a blue hat"]},
}
_FILES = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
                "dtype": {"type": "string", "enum": ["float32", "float16"]},
            },
        }
    }
}


def _document(shape: Any, examples: dict[str, Any], more: Any = None) -> dict[str, Any]:
    """`http.document_body` with examples, and other content types beside JSON."""
    document = http.document_body(shape, **examples)
    document["requestBody"]["content"].update(more or {})
    return document


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of `args` (AppArgs)."""
    application: serve.Application = bind(EncodeDeployment, args)
    return application
