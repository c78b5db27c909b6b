"""The generator's HTTP client against a real server: what it sends arrives, what comes is read."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.http1 import Http, multipart


async def echo(request: Request) -> Response:
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "key": request.headers.get("authorization"),
            "kind": request.headers.get("content-type"),
            "bytes": len(body),
            "port": request.client.port if request.client else 0,
        }
    )


async def form(request: Request) -> Response:
    async with request.form() as fields:
        image, title = fields["image"], fields["title"]
        assert not isinstance(image, str)
        return JSONResponse({"image": len(await image.read()), "title": title})


async def close(_: Request) -> Response:
    return Response("bye", headers={"connection": "close"})


async def refuse(_: Request) -> Response:
    return Response("no", status_code=503)


ROUTES = [
    Route("/echo", echo, methods=["GET", "POST"]),
    Route("/form", form, methods=["PUT"]),
    Route("/close", close),
    Route("/refuse", refuse),
]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    config = uvicorn.Config(Starlette(routes=ROUTES), port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        while not server.started:
            await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await running


async def test_requests_arrive_whole(url: str) -> None:
    http = Http(url, key="k1")
    status, body = await http.send(http.request("POST", "/echo", b"{}" * 50_000))
    assert status == 200
    for part in (b'"POST"', b'"Bearer k1"', b'"application/json"', b'"bytes":100000'):
        assert part in body
    http.close()


async def test_connections_are_kept_and_more_are_opened_when_none_is_free(url: str) -> None:
    http = Http(url)
    request = http.request("GET", "/echo")
    first = [await http.send(request) for _ in range(3)]
    assert len(set(first)) == 1  # one connection, one port
    together = await asyncio.gather(*(http.send(request) for _ in range(4)))
    assert len(set(together)) > 1
    http.close()


async def test_a_closed_connection_is_replaced(url: str) -> None:
    http = Http(url)
    assert await http.send(http.request("GET", "/close")) == (200, b"bye")
    assert (await http.send(http.request("GET", "/echo")))[0] == 200
    http.close()


async def test_refusals_are_answers(url: str) -> None:
    http = Http(url)
    assert await http.send(http.request("GET", "/refuse")) == (503, b"no")
    assert (await http.send(http.request("GET", "/nothing")))[0] == 404
    http.close()


async def test_a_form_is_read_as_one(url: str) -> None:
    http = Http(url)
    body, kind = multipart({"image": b"\xff\xd8" * 100, "title": "red shoes"})
    answer = await http.send(http.request("PUT", "/form", body, kind))
    assert answer == (200, b'{"image":200,"title":"red shoes"}')
    http.close()


def test_other_addresses_are_refused() -> None:
    with pytest.raises(ValueError, match="expected http://host:port"):
        Http("https://example.org")
