"""A response's head and body in one write, so that each hop behind us is woken once.

In: ASGI calls of uvicorn, which writes a response's head by itself, and then its body. Out: the
same bytes. Alone the head wakes HAProxy and then the client, which can do nothing with it.
"""

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class OneWrite:
    """ASGI middleware; it must be the outermost, since only there `send` is uvicorn's own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = getattr(send, "__self__", None)
        if not isinstance(cycle, RequestResponseCycle) or scope["method"] == "HEAD":  # no body
            await self._app(scope, receive, send)
            return
        kept: Any = _Kept(cycle)
        cycle.transport = kept
        try:
            await self._app(scope, receive, send)
        finally:
            kept.flush()


class _Kept:
    """The transport of one response: keeps its head until there is more to write, or an end."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head: bytes | None = None
        self._begun = False

    def write(self, data: bytes) -> None:
        if self._cycle.response_started and not self._begun:
            self._head, self._begun = data, True
            return
        if self._head is not None:
            data, self._head = self._head + data, None
        self._transport.write(data)

    def flush(self) -> None:
        if self._head is not None:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
