"""`up` is ready when gRPC answers too; beside a real server that is not ready at first."""

from typing import Any

import grpc
import grpc.aio
import pytest

from serving.config import topology
from serving.errors import MainJobError
from serving.up import grpc_side


class Ingress(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Refuses every application a few times, as HAProxy does before it knows the replicas."""

    def __init__(self, refusals: int) -> None:
        self.left: dict[str, int] = {}
        self.answered: dict[str, str] = {}
        self._refusals = refusals

    def service(self, call: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer(call.method))

    def _answer(self, method: str) -> Any:
        async def answer(_request: bytes, context: Any) -> bytes:
            name = dict(context.invocation_metadata())["application"]
            left = self.left.get(name, self._refusals)
            self.left[name] = left - 1
            if left > 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "no replica yet")
            self.answered[name] = method
            if method == grpc_side.LOOKUP:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no ids")
            return b""

        return answer


async def wait(ingress: Ingress) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((ingress,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        layout = topology("development", models=("a", "b"))
        await grpc_side.wait_ready(f"127.0.0.1:{port}", layout.applications)
    finally:
        await server.stop(None)


async def test_every_application_with_a_grpc_side_is_waited_for() -> None:
    ingress = Ingress(refusals=2)
    await wait(ingress)
    assert ingress.answered == {
        "lookup": grpc_side.LOOKUP,
        "models": grpc_side.LIVE,
        "a": grpc_side.LIVE,
        "b": grpc_side.LIVE,
    }


async def test_one_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_side, "READY_S", 0.0)
    with pytest.raises(MainJobError, match=r"lookup: no answer over gRPC .* UNAVAILABLE"):
        await wait(Ingress(refusals=1 << 30))
