"""Refusals at the door: who cannot be in time hears so before anything else is done for it.

In: ASGI calls as the HTTP server has them, before Serve's layers, ours and the routes. Out: 429 for
a request for inference that the batcher would refuse for its deadline; every other call is passed
on, with what was read of it. Under overload most requests are refused, on the cores that the model
computes on: a refusal that went the whole way cost three times as much.
"""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import auth
from serving.deadline import header_seconds
from serving.errors import OverloadedError, ServingError
from serving.guard import RequestMetrics, error_response
from serving.models import rest
from serving.models.model import Call, Model
from serving.models.protocol import InferenceRequest
from serving.models.service import ticket
from serving.replica import Replica

READ = "tessera.inference"  # of an ASGI scope: the `Read` request, where the door has read it
# Bodies over this go the long way: what is read here does not count as a request of Serve's yet.
READ_BYTES = 1 << 20
REPORT_S = 1.0
_ROUTE = "/infer"


@dataclass(frozen=True, slots=True)
class Read:
    """A request for inference, parsed. deadline: seconds of time.monotonic()."""

    request: InferenceRequest
    deadline: float | None


def read(body: bytes, headers: Mapping[str, str], limit_bytes: int) -> Read:
    """Parse a request for inference. Raises what `rest.read` does."""
    request = rest.read(body, headers, limit_bytes)
    seconds = header_seconds(headers.get("x-request-timeout-seconds"))
    return Read(request, request.deadline(seconds))


class Door:
    """ASGI middleware before everything else of one model's replica.

    Refusals are counted, and logged as one line a second: a line each would cost what they save.
    """

    def __init__(self, app: ASGIApp, replica: Replica, model: Model) -> None:
        self._app = app
        self._replica = replica
        self._model = model
        self._path = replica.prefix + _ROUTE
        self._requests = RequestMetrics(replica)
        self._refused = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            not self._model.crowded
            or scope["type"] != "http"
            or scope["path"] != self._path
            or scope["method"] != "POST"
        ):
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        length = headers.get("content-length", "")
        if not length.isdigit() or int(length) > READ_BYTES:
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body", False):
            messages.append(await receive())
        try:
            scope[READ] = self._admit(b"".join(m.get("body", b"") for m in messages), headers)
        except OverloadedError as error:
            await self._refuse(error, headers, scope, receive, send)
            return
        except ServingError:
            pass  # the application says what is wrong, as it does of every request

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)

    def _admit(self, body: bytes, headers: Mapping[str, str]) -> Read:
        """The request; OverloadedError if it cannot be in time."""
        key = self._replica.authenticator.authenticate(headers.get("authorization"))
        auth.check_scope(key, "read")
        found = read(body, headers, READ_BYTES)
        asked = ticket(found.request, key.name, found.deadline)
        self._model.foresee(found.request.inputs, Call(found.request.graph, None, asked))
        return found

    async def _refuse(
        self,
        error: OverloadedError,
        headers: Mapping[str, str],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        identity = headers.get("x-request-id", "")[:128] or uuid.uuid4().hex
        answer = error_response(error, self._replica.prefix, identity)
        answer.headers["x-request-id"] = identity
        if not self._refused:
            asyncio.get_running_loop().call_later(REPORT_S, self._report)
        self._refused += 1
        await answer(scope, receive, send)

    def _report(self) -> None:
        call = (self._path, "POST", str(OverloadedError.status))
        self._requests.refused(call, self._refused, OverloadedError.slug)
        self._refused = 0
