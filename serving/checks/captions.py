"""What an image shows, in words: whole, or as server-sent events while it is written.

In: an image or the id of a stored ad. Out: JSON, or for `Accept: text/event-stream` the events of
the HTML standard (section 9.2): `text` with each new part, then `caption` as JSON would be, or
`problem`. A reader that goes away ends the writing; what is whole is stored.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from serving import http
from serving.checks import forms
from serving.checks.judge import Judge, Judged
from serving.checks.opening import Bench
from serving.checks.subjects import Subject, inline
from serving.checks.verdicts import Caption
from serving.deadline import Deadline
from serving.errors import DeadlineExceededError, InvalidRequestError, ServingError
from serving.ingest.ads import make_ad
from serving.lookup.rows import parse_id
from serving.schema import EXAMPLE_IMAGE, CaptionRequest, CaptionResponse

EVENTS = "text/event-stream"
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # ends a text whose last character has more bytes to come


def add_caption_route(app: FastAPI, bench: Bench) -> None:
    """Add `/caption`."""

    @app.post(
        "/caption",
        dependencies=[http.requires("read")],
        responses={200: {"model": CaptionResponse}},
        openapi_extra=http.document_body(CaptionRequest, image={"image": EXAMPLE_IMAGE}),
    )
    async def caption(request: Request) -> Response:
        """What an image shows, in words; with `Accept: text/event-stream` as they are written."""
        body = await http.json_body(request, CaptionRequest)
        if (body.image is None) == (body.ad_id is None):
            raise InvalidRequestError("expected either `image` or `ad_id`; send one of them")
        header = request.headers.get("x-request-timeout-seconds")
        deadline = forms.deadline(body.deadline_ms, header)
        if body.image is not None:
            subject = inline(make_ad(0, "", "", forms.image(body.image)))
        else:
            found = (await bench.subjects.read([parse_id(body.ad_id)]))[0]
            if isinstance(found, ServingError):
                raise found
            subject = found
        if http.accepts(request, EVENTS):
            written = events(bench.judge, subject, deadline)
            first = await anext(written)  # what fails before it is a problem as any other
            return StreamingResponse(_behind(first, written), media_type=EVENTS)
        judged = await bench.judge.caption(subject, deadline)
        return Response(orjson.dumps(_answer(judged)), media_type="application/json")


async def events(judge: Judge, subject: Subject, deadline: Deadline) -> AsyncGenerator[bytes]:
    """The events of one caption. Raises the ServingError that stands before the first."""
    told = ""
    last: Judged[Caption] | None = None
    async with aclosing(judge.tell(subject)) as writing:
        try:
            while (judged := await _next(writing, deadline)) is not None:
                last, text = judged, judged.value.caption
                if text.startswith(told) and text != told and not text.endswith(UNFINISHED):
                    yield _event("text", {"text": text[len(told) :]})
                    told = text
        except ServingError as error:
            if last is None:
                raise
            yield _event("problem", error.problem())
            return
    if last is not None:
        yield _event("caption", _answer(last))


async def _next(
    writing: AsyncGenerator[Judged[Caption]], deadline: Deadline
) -> Judged[Caption] | None:
    try:
        return await asyncio.wait_for(anext(writing, None), max(0.0, deadline.remaining_s))
    except TimeoutError as error:
        raise DeadlineExceededError("the caption was not written in time") from error


async def _behind(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        yield first
        async for event in rest:
            yield event


def _answer(judged: Judged[Caption]) -> dict[str, Any]:
    return {"caption": judged.value.caption, "source": judged.source}


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))
