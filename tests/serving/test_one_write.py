"""A response in one write: the same bytes as without, for every way that a response can go."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving import outermost
from serving.one_write import OneWrite


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def answered(app: ASGIApp, method: str = "POST", *, keep: bool = True) -> Wire:
    """What uvicorn writes for one request."""
    wire: Any = Wire()
    cycle = RequestResponseCycle(
        scope={"type": "http", "method": method, "path": "/", "headers": [], "query_string": b""},
        transport=wire,
        flow=FlowControl(wire),
        logger=logging.getLogger("test"),
        access_logger=logging.getLogger("test"),
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=True,
        keep_alive=keep,
        on_response=lambda: None,
    )
    cycle.more_body = False
    cycle.message_event.set()
    await cycle.run_asgi(app)  # type: ignore[arg-type]
    return wire


async def _reads_first(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await JSONResponse({"a": 1})(scope, receive, send)


async def _breaks(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("broken on purpose")


def _streams() -> StreamingResponse:
    return StreamingResponse(iter([b"one", b"two"]))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize(
    "make", [lambda: JSONResponse({"a": 1}), lambda: Response(status_code=204), _streams]
)
async def test_the_bytes_are_the_same(
    make: Callable[[], Callable[..., Awaitable[None]]], method: str, keep: bool
) -> None:
    plain = await answered(make(), method, keep=keep)
    joined = await answered(OneWrite(make()), method, keep=keep)
    assert b"".join(joined.writes) == b"".join(plain.writes)
    assert (joined.closed, plain.closed) == (not keep, not keep)


async def test_head_and_body_are_one_write() -> None:
    assert len((await answered(JSONResponse({"a": 1}))).writes) == 2
    (whole,) = (await answered(OneWrite(JSONResponse({"a": 1})))).writes
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert whole.endswith(b'\r\n\r\n{"a":1}')


async def test_what_comes_before_a_response_is_not_kept() -> None:
    first, second = (await answered(OneWrite(_reads_first))).writes
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert second.endswith(b'{"a":1}')


async def test_a_head_without_a_body_is_written_at_the_end(caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL, "test")
    wire = await answered(OneWrite(_breaks))
    assert b"".join(wire.writes).startswith(b"HTTP/1.1 200 OK\r\n")
    assert wire.closed


async def test_other_servers_and_other_messages_pass() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "headers": []}
    await OneWrite(JSONResponse([]))(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


def test_serve_finds_what_was_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outermost, "_OF_THIS_PROCESS", [])
    assert outermost.registered() == []
    outermost.register(Middleware(OneWrite))
    assert [found.cls for found in outermost.registered()] == [OneWrite]
