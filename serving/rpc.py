"""The gRPC side of every application: keys, errors, metrics and logs around one call.

In: the call's context and a handler. Out: the handler's answer, or an empty message with the
status code of the error. The counterpart of `http.Guard`.
"""

import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from serving import auth, logs
from serving.errors import ServingError
from serving.guard import RequestMetrics
from serving.replica import Replica

# Details travel in a header, and clients take 8 KiB of headers; each byte may become three there.
DETAIL_BYTES = 2_000
_Answer = TypeVar("_Answer")


class Calls:
    """Runs gRPC calls of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._requests = RequestMetrics(replica)

    async def run(
        self,
        context: Any,
        rpc: str,
        scope: auth.Scope | None,
        handler: Callable[[], Awaitable[_Answer]],
        empty: _Answer,
    ) -> _Answer:
        """Answer one call of `rpc` ("/package.Service/Method").

        `context`: Serve's RayServegRPCContext. `scope` None: a health call, no key needed.
        """
        metadata = dict(context.invocation_metadata())
        token = logs.request_id.set(metadata.get("request_id") or uuid.uuid4().hex)
        started = time.perf_counter()
        error: ServingError | None = None
        try:
            if scope is not None:
                self._replica.authenticator.authenticate_peer(
                    metadata.get("authorization"), context.peer(), scope
                )
            answer = await handler()
        except ServingError as known:
            answer, error = empty, known
        except Exception as unknown:  # the border: logged in full, answered in brief
            self._replica.logger.exception("call failed")
            text = f"{type(unknown).__name__}; the log has the request id"
            answer, error = empty, ServingError(text)
        self.count(rpc, time.perf_counter() - started, error)
        logs.request_id.reset(token)
        if error is not None:
            context.set_code(getattr(grpc.StatusCode, error.grpc))
            context.set_details(
                error.detail.encode(errors="replace")[:DETAIL_BYTES].decode("utf-8", "ignore")
            )
            if error.retry_after is not None:
                # A list: Serve joins it to its own.
                context.set_trailing_metadata([("retry-after", error.retry_after)])
        return answer

    def count(self, rpc: str, seconds: float, error: ServingError | None) -> None:
        """Count and log one answer; `run` does so for calls, streams for each of theirs."""
        status, problem = ("OK", None) if error is None else (error.grpc, error.slug)
        self._requests.done((rpc, "grpc", status), seconds, problem)
