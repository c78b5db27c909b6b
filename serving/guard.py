"""The guard before every application: ids, keys, bounds, errors, metrics and logs of a request.

In: ASGI calls. Out: the app's answer, or a problem; each is counted and logged once. `http.py`
puts it around the apps it makes; `rpc.py` is its counterpart for gRPC.
"""

import time
import uuid
from collections.abc import Awaitable, Callable, Mapping

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import auth, logs
from serving.errors import (
    BodyTooLargeError,
    ClientGoneError,
    ServingError,
    TransportError,
    UnauthenticatedError,
)
from serving.replica import Replica

DRAIN_BYTES = 64 << 20  # a refused body is read this far, so that the client hears the answer
KEY = "tessera.key"  # of an ASGI scope: who calls
PROBLEM = "tessera.problem"  # of an ASGI scope: slug of the error answered


def error_response(error: ServingError, prefix: str, request_id: str | None) -> Response:
    """The error as problem+json, or as the protocol's `{"error"}` under `/v2`."""
    headers = {"retry-after": error.retry_after} if error.retry_after else {}
    if isinstance(error, UnauthenticatedError):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, TransportError) and error.allow is not None:
        headers["allow"] = error.allow
    if prefix.startswith("/v2"):
        content, media = {"error": error.detail}, "application/json"
    else:
        content = error.problem() | (
            {"instance": f"urn:request:{request_id}"} if request_id else {}
        )
        media = "application/problem+json"
    return Response(orjson.dumps(content), error.status, headers, media)


# A route, and what answers its requests.
Plain = tuple[BaseRoute, Callable[[Request], Awaitable[Response]]]


class Guard:
    """ASGI middleware around everything an application answers over HTTP.

    plain: routes that take a request and give a response, by method and path: the app is not asked.
    """

    def __init__(
        self,
        app: ASGIApp,
        replica: Replica,
        body_limit_bytes: int,
        public: frozenset[str],
        plain: Mapping[tuple[str, str], Plain],
    ) -> None:
        self._app = app
        self._plain = plain
        self._replica = replica
        self._limit = body_limit_bytes
        self._public = public
        self._requests = RequestMetrics(replica)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        given = headers.get("x-request-id", "")[:128]  # Serve makes one, and echoes it itself
        request_id = given or uuid.uuid4().hex
        token = logs.request_id.set(request_id)
        started, status = time.perf_counter(), 500

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not given:
                    mark = (b"x-request-id", request_id.encode("latin-1"))
                    message["headers"] = [*message["headers"], mark]
            await send(message)

        try:
            await self._answer(scope, headers, receive, send_marked)
        finally:
            route = getattr(scope.get("route"), "path", None)
            name = "unmatched" if route is None else self._replica.prefix + route
            problem = scope.get(PROBLEM) if status >= 400 else None
            self._requests.done(
                (name, scope["method"], str(status)), time.perf_counter() - started, problem
            )
            logs.request_id.reset(token)

    async def _answer(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send
    ) -> None:
        sent, body = False, _Body(receive, self._limit)

        async def send_noted(message: Message) -> None:
            nonlocal sent
            sent = True
            await send(message)

        try:
            path = scope["path"].removeprefix(scope.get("root_path") or self._replica.prefix)
            scope[KEY] = (
                auth.ANONYMOUS
                if path in self._public
                else self._replica.authenticator.authenticate(headers.get("authorization"))
            )
            body.check_length(headers)
            plain = self._plain.get((scope["method"], path))
            if plain is None:
                await self._app(scope, body, send_noted)
            else:
                scope["route"], handle = plain
                response = await handle(Request(scope, body))
                await response(scope, body, send_noted)
            return
        except ServingError as error:
            found = error
        except ClientDisconnect:
            found = ClientGoneError("the connection ended before the request did")
        except Exception as error:  # the border: logged in full, answered in brief
            self._replica.logger.exception("request failed")
            found = ServingError(f"{type(error).__name__}; the log has the request id")
        if sent:
            return
        scope[PROBLEM] = found.slug
        if not body.ended:  # a server that has given all waits for the client to hang up
            await _drain(headers, receive)
        await error_response(found, self._replica.prefix, logs.request_id.get())(
            scope, receive, send
        )


class _Body:
    """`receive` that raises BodyTooLargeError once the body is over `limit` bytes."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0
        self.ended = False

    def check_length(self, headers: Mapping[str, str]) -> None:
        """Raises BodyTooLargeError for what the header announces."""
        length = headers.get("content-length", "")
        if length.isdigit():
            self._check(int(length))

    async def __call__(self) -> Message:
        message = await self._receive()
        self.ended = not message.get("more_body", False)
        self._seen += len(message.get("body", b""))
        self._check(self._seen)
        return message

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise BodyTooLargeError(
                f"the body is over this route's limit of {self._limit} bytes; send less at once"
            )


async def _drain(headers: Mapping[str, str], receive: Receive) -> None:
    """Read what the client is still sending, within bounds."""
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    seen, more = 0, True
    while more and seen < DRAIN_BYTES:
        message = await receive()
        seen += len(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)


class RequestMetrics:
    """Requests, latency and errors of one application, over HTTP and gRPC alike."""

    def __init__(self, replica: Replica) -> None:
        metrics, tags = replica.metrics, ("route", "method", "status")
        self._replica = replica
        self._count = metrics.counter("tessera_requests", "requests answered", tags)
        self._latency = metrics.histogram(
            "tessera_request_latency_ms", "time to the answer, ms", tag_keys=("route",)
        )
        self._errors = metrics.counter(
            "tessera_errors", "requests answered with an error", ("route", "problem")
        )

    def done(self, call: tuple[str, str, str], seconds: float, problem: str | None) -> None:
        """Count and log one call (route, method, status); `problem`: the slug of its error."""
        route, method, status = call
        self._count.inc(tags={"route": route, "method": method, "status": status})
        self._latency.observe(seconds * 1000, tags={"route": route})
        if problem is not None:
            self._errors.inc(tags={"route": route, "problem": problem})
        fields = {"route": route, "method": method, "status": status, "ms": round(seconds * 1e3, 3)}
        self._replica.logger.info("request", extra={"fields": fields | {"problem": problem}})

    def refused(self, call: tuple[str, str, str], times: int, problem: str) -> None:
        """Count calls that were refused before anything was done for them, and log one line."""
        route, method, status = call
        self._count.inc(times, tags={"route": route, "method": method, "status": status})
        self._errors.inc(times, tags={"route": route, "problem": problem})
        fields = {"route": route, "method": method, "status": status, "times": times}
        self._replica.logger.info("refused", extra={"fields": fields | {"problem": problem}})
