"""Whether the gRPC side of the applications answers too: who reads `up`'s JSON may call either.

In: the front door's gRPC address and the applications. Out: nothing, or the name of one that does
not answer. The ingress hears of new replicas a little after they run, and of HTTP first.
"""

import asyncio
import time
from collections.abc import Iterable

import grpc
import grpc.aio

from serving.config import Application
from serving.errors import MainJobError

READY_S = 60.0
LIVE = "/inference.GRPCInferenceService/ServerLive"
LOOKUP = "/tessera.v1.Lookup/Lookup"
_CALL_S = 5.0
# An empty lookup is refused, and so is one without a key: by the application itself.
_ANSWERS = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)


async def wait_ready(address: str, applications: Iterable[Application]) -> None:
    """Until all that speak gRPC answer; MainJobError names one that does not.

    address: host:port.
    """
    deadline = time.monotonic() + READY_S
    async with grpc.aio.insecure_channel(address) as channel:
        for app in applications:
            rpc = method(app)
            while rpc is not None and (said := await _ask(channel, rpc, app.name)) not in _ANSWERS:
                if time.monotonic() > deadline:
                    raise MainJobError(
                        f"{app.name}: no answer over gRPC after {READY_S:.0f} s: {said.name}"
                    )
                await asyncio.sleep(0.1)


def method(app: Application) -> str | None:
    """What an application is asked; None: it has no gRPC side."""
    if app.import_path.startswith("serving.models."):
        return LIVE
    return LOOKUP if app.import_path.startswith("serving.lookup.") else None


async def _ask(channel: grpc.aio.Channel, rpc: str, application: str) -> grpc.StatusCode:
    call = channel.unary_unary(rpc)
    try:
        await call(b"", metadata=(("application", application),), timeout=_CALL_S)
    except grpc.aio.AioRpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK
