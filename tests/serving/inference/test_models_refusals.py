"""What a model that is full answers, over HTTP and gRPC."""

import grpc as plain
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serving.errors import OverloadedError


def test_a_refusal_says_when_to_come_back(front, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise OverloadedError("the queue is full", retry_after_s=6.2)

    monkeypatch.setattr(front.models["fixed"], "infer", full)
    tensor = {"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}
    url = f"http://{front.http}/v2/models/fixed/infer"
    answer = httpx.post(url, json={"inputs": [tensor]}, trust_env=False)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json() == {"error": "the queue is full"}
    x = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[3])
    request = service_pb2.ModelInferRequest(
        model_name="fixed", inputs=[x], raw_input_contents=[b"\0" * 12]
    )
    with plain.insecure_channel(front.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(plain.RpcError) as error:
            stub.ModelInfer(request, metadata=[("application", "fixed")])
    assert error.value.code() == plain.StatusCode.RESOURCE_EXHAUSTED
    assert dict(error.value.trailing_metadata())["retry-after"] == "7"


def test_details_that_quote_much_still_fit_a_header(front) -> None:
    request = service_pb2.ModelInferRequest(model_name="\u20ac" * 100_000)
    with plain.insecure_channel(front.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(plain.RpcError) as error:
            stub.ModelInfer(request, metadata=[("application", "fixed")])
    assert error.value.code() == plain.StatusCode.NOT_FOUND
    assert "serves the model of that name" in error.value.details()
