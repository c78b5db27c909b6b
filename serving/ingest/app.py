"""Ray Serve's side of ingest: PUT, batch, block, unblock and DELETE under `/v1/ads`.

In: an `AppArgs` dictionary. Out: one deployment, `ingest`, that calls the models' replicas
through handles and writes the store.
"""

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from ray import serve
from starlette.datastructures import FormData, UploadFile

from serving import http, unserved
from serving.config import AppArgs
from serving.errors import InvalidRequestError, ServingError
from serving.form_data import CONTENT_TYPE, form_of
from serving.ingest.ads import make_ad, parse_manifest
from serving.ingest.indexing import Indexer
from serving.ingest.opening import open_indexer
from serving.lookup.rows import parse_id
from serving.replica import Replica, bind
from serving.schema import (
    MAX_BATCH_ITEMS,
    AdResponse,
    BlockRequest,
    BlockResponse,
    DeleteResponse,
)

BODY_LIMIT_BYTES = 128 << 20
_AD_PARTS = frozenset({"image", "title", "text"})
NDJSON = "application/x-ndjson"


@serve.deployment(name="ingest")
@serve.ingress()
@unserved.complete
class IngestDeployment:
    """One replica of ingest."""

    async def __init__(self, args: dict[str, Any]) -> None:  # type: ignore[misc] # Serve awaits it
        self._replica = Replica.open(AppArgs.model_validate(args))
        self._indexer = await open_indexer(self._replica.settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create(self._replica, self._indexer)


def create(replica: Replica, indexer: Indexer) -> FastAPI:
    """The HTTP app of ingest."""
    app = http.create_app(replica, body_limit_bytes=BODY_LIMIT_BYTES, ready=indexer.writer.ready)
    ads = replica.metrics.counter("tessera_ingested_ads", "ads taken in", ("outcome",))
    write, admin = [http.requires("write")], [http.requires("admin")]

    @app.put("/{ad_id}", dependencies=write, response_model=AdResponse, openapi_extra=_AD_FORM)
    async def put(ad_id: str, request: Request) -> Response:
        """Encode one creative and store its semantic IDs; idempotent."""
        number = parse_id(ad_id)
        async with form_of(request, files=1) as form:
            _check_parts(form, _AD_PARTS)
            title, text = _text(form, "title"), _text(form, "text")
            result = await indexer.index_one(make_ad(number, title, text, await _image(form)))
        ads.inc(tags={"outcome": "stored"})
        return Response(orjson.dumps(result.answer()), media_type="application/json")

    @app.post("/batch", dependencies=write, openapi_extra=_BATCH_FORM, response_class=Response)
    async def batch(request: Request) -> Response:
        """Up to 1,000 creatives: one JSON line an item, a result or a problem, in order."""
        async with form_of(request, files=MAX_BATCH_ITEMS + 1) as form:
            _check_parts(form)
            lines = parse_manifest(await _manifest(form), await _images(form))
        found = iter(
            await indexer.index([x.ad for x in lines if not isinstance(x.ad, ServingError)])
        )
        answers = []
        for line in lines:
            result = line.ad if isinstance(line.ad, ServingError) else next(found)
            if isinstance(result, ServingError):
                ads.inc(tags={"outcome": result.slug})
                problem = {"ad_id": line.ad_id, "line": line.number, "problem": result.problem()}
                answers.append(problem)
            else:
                ads.inc(tags={"outcome": "stored"})
                answers.append(result.answer())
        body = b"".join(orjson.dumps(a, option=orjson.OPT_APPEND_NEWLINE) for a in answers)
        return Response(body, media_type=NDJSON)

    async def mark(ad_id: str, request: Request, *, blocked: bool) -> BlockResponse:
        number = parse_id(ad_id)
        asked = await http.json_body(request, BlockRequest)
        if blocked:
            replicated = await indexer.writer.block(number, asked.reason)
        else:
            replicated = await indexer.writer.unblock(number)
        replica.logger.warning(
            "blocked" if blocked else "unblocked",
            extra={"fields": {"ad_id": number, "reason": asked.reason, "replicated": replicated}},
        )
        return BlockResponse(ad_id=number, blocked=blocked, replicated=replicated)

    body = http.document_body(BlockRequest, complaint={"reason": "complaint 4711"})

    @app.post("/{ad_id}/block", dependencies=admin, openapi_extra=body)
    async def block(ad_id: str, request: Request) -> BlockResponse:
        """Take an ad down everywhere; the answer says how many store replicas have it."""
        return await mark(ad_id, request, blocked=True)

    @app.post("/{ad_id}/unblock", dependencies=admin, openapi_extra=body)
    async def unblock(ad_id: str, request: Request) -> BlockResponse:
        """Lift a human's block; a verdict's own block stays."""
        return await mark(ad_id, request, blocked=False)

    @app.delete("/{ad_id}", dependencies=write)
    async def delete(ad_id: str) -> DeleteResponse:
        """The ad has ended: its record and content are removed."""
        number = parse_id(ad_id)
        await indexer.writer.end(number)
        return DeleteResponse(ad_id=number, status="MISS")

    return app


def _check_parts(form: FormData, known: frozenset[str] | None = None) -> None:
    """InvalidRequestError for a part that nobody would read: an unknown one, or a second one."""
    seen: set[str] = set()
    for name, _ in form.multi_items():
        if known is not None and name not in known:
            raise InvalidRequestError(f"unknown part {name!r}; known: {sorted(known)}")
        if name in seen:
            raise InvalidRequestError(f"part {name!r} is given twice; send it once")
        seen.add(name)


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name}: expected a text field, found a file")
    return value


async def _image(form: FormData) -> bytes | None:
    value = form.get("image")
    if value is None:
        return None
    if not isinstance(value, UploadFile):
        raise InvalidRequestError("image: expected a file, found a text field")
    return await value.read()


async def _manifest(form: FormData) -> bytes:
    value = form.get("manifest")
    if value is None:
        raise InvalidRequestError("expected a part named `manifest` with one JSON object a line")
    return value.encode() if isinstance(value, str) else await value.read()


async def _images(form: FormData) -> dict[str, bytes]:
    parts = [(name, value) for name, value in form.multi_items() if name != "manifest"]
    return {name: await part.read() for name, part in parts if isinstance(part, UploadFile)}


def _multipart(
    properties: dict[str, Any], required: list[str], example: dict[str, str]
) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    content = {"schema": schema, "examples": {"words": {"value": example}}}
    return {"requestBody": {"content": {CONTENT_TYPE: content}}}


_FILE = {"type": "string", "format": "binary"}
_AD_FORM = _multipart(
    {"image": _FILE, "title": {"type": "string"}, "text": {"type": "string"}},
    [],
    {"title": "red shoes", "text": "for running, in all sizes"},
)
_BATCH_FORM = _multipart(
    {"manifest": _FILE},
    ["manifest"],
    {"manifest": '{"ad_id": 4000000000000000001, "title": "red shoes"}\n'},
)


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of `args` (AppArgs)."""
    application: serve.Application = bind(IngestDeployment, args)
    return application
