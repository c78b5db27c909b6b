"""What an application answers to RPCs that it does not have, over a real gRPC server."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serving import unserved
from serving.config import GRPC_SERVICERS


@unserved.complete
class Room:
    """A deployment with one RPC of its own."""

    async def ServerLive(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        del request, grpc_context
        return service_pb2.ServerLiveResponse(live=True)


@pytest.fixture
async def stub() -> AsyncIterator[Any]:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Room(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)
    await server.stop(None)


async def test_its_own_answers_and_others_are_unimplemented(stub: Any) -> None:
    assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live
    metadata = [("application", "room")]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ModelInfer(service_pb2.ModelInferRequest(), metadata=metadata)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "'room' has no inference.GRPCInferenceService/ModelInfer" in refused.value.details()
    requests = iter([service_pb2.ModelInferRequest()])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in stub.ModelStreamInfer(requests, metadata=metadata):
            pass
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_every_service_of_the_ingress_is_covered() -> None:
    servicers = {
        path.rpartition("add_")[2].removesuffix("Servicer_to_server") for path in GRPC_SERVICERS
    }
    assert servicers == {service.name for service in unserved._SERVICES}
    assert all(hasattr(Room, method.name) for s in unserved._SERVICES for method in s.methods)
