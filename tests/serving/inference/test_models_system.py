"""Models and encoding in a running system: stock clients through the ingress, keys, roll-out."""

import base64
import queue
import threading
import time
from typing import Any

import grpc as plain
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.serving.support import System, picture


def pixels(module: Any, rows: int = 2) -> list[Any]:
    array = np.random.default_rng(rows).integers(0, 256, (rows, 96, 96, 3), np.uint8)
    tensor = module.InferInput("pixels", list(array.shape), "UINT8")
    tensor.set_data_from_numpy(array)
    return [tensor]


@pytest.fixture
def http(system: System):
    with triton_http.InferenceServerClient(system.http.removeprefix("http://")) as client:
        yield client


@pytest.fixture
def grpc(system: System):
    with triton_grpc.InferenceServerClient(system.grpc) as client:
        yield client


def bearer(system: System, key: str = "read") -> dict[str, str]:
    return {"authorization": f"Bearer {system.keys[key]}"}


async def test_the_stock_clients_get_the_same_rows(system: System, http, grpc) -> None:
    # The HTTP client writes into the headers it is given, so each call gets its own.
    over_http = http.infer("image_encoder", pixels(triton_http), headers=bearer(system))
    routed = {"application": "image_encoder", **bearer(system)}
    over_grpc = grpc.infer("image_encoder", pixels(triton_grpc), headers=routed)
    async with triton_grpc_aio.InferenceServerClient(system.grpc) as client:
        made = pixels(triton_grpc_aio)
        over_aio = await client.infer("image_encoder", made, headers=routed)
    rows = over_http.as_numpy("image_features")
    assert rows.shape == (2, 384)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)
    assert np.allclose(over_grpc.as_numpy("image_features"), rows, atol=1e-5)
    assert np.allclose(over_aio.as_numpy("image_features"), rows, atol=1e-5)


def test_large_tensors_pass(system: System, http, grpc) -> None:
    result = http.infer("image_encoder", pixels(triton_http, 300), headers=bearer(system))
    assert result.as_numpy("image_features").shape == (300, 384)
    routed = {"application": "image_encoder", **bearer(system)}
    result = grpc.infer("image_encoder", pixels(triton_grpc, 300), headers=routed)
    assert result.as_numpy("image_features").shape == (300, 384)


def test_grpc_needs_an_application_and_a_key(system: System, grpc) -> None:
    with pytest.raises(InferenceServerException) as error:
        grpc.get_model_metadata("image_encoder", headers=bearer(system))
    assert error.value.status() == "StatusCode.NOT_FOUND"
    for headers in ({}, {"authorization": "Bearer wrong"}):
        routed = {"application": "image_encoder", **headers}
        with pytest.raises(InferenceServerException) as error:
            grpc.infer("image_encoder", pixels(triton_grpc), headers=routed)
        assert error.value.status() == "StatusCode.UNAUTHENTICATED"
    assert grpc.is_server_live(headers={"application": "models"})
    assert grpc.is_server_ready(headers={"application": "models"})


def test_the_server_level_over_both_protocols(system: System, http, grpc) -> None:
    headers = bearer(system)
    admin = bearer(system, "admin")
    assert http.is_server_live()
    assert http.is_server_ready()
    assert http.get_server_metadata(headers=headers)["name"] == "tessera"
    over_http = http.get_model_repository_index(headers=dict(admin))
    routed = {"application": "models", **admin}
    over_grpc = grpc.get_model_repository_index(headers=routed, as_json=True)["models"]
    with pytest.raises(InferenceServerException, match="scopes"):
        http.get_model_repository_index(headers=headers)
    serving = {entry["name"] for entry in over_http if entry["state"] == "READY"}
    assert serving >= {"image_encoder", "text_encoder", "semantic_id"}
    assert [entry["name"] for entry in over_grpc] == [entry["name"] for entry in over_http]


def test_loading_needs_the_admin_scope_and_a_known_name(system: System, http, grpc) -> None:
    for client, routed in ((http, {}), (grpc, {"application": "models"})):
        with pytest.raises(InferenceServerException, match="scopes"):
            client.load_model("image_encoder", headers={**routed, **bearer(system, "write")})
        admin = {**routed, **bearer(system, "admin")}
        with pytest.raises(InferenceServerException, match="there is no model 'nothing'"):
            client.load_model("nothing", headers=admin)
        with pytest.raises(InferenceServerException, match="there is no model"):
            client.unload_model("-no-name-", headers=admin)
        with pytest.raises(InferenceServerException, match="found config; expected `version`"):
            client.load_model("image_encoder", config="{}", headers=admin)
    with system.client("admin") as client:
        path = "/v2/repository/models/image_encoder/load"
        missing = client.post(path, json={"parameters": {"version": "999"}})
        assert missing.status_code == 404
        assert "no version 999" in missing.json()["error"]
        assert client.post(path, json=[1]).status_code == 400
        assert client.post(path, content=b"{").status_code == 400


def test_a_model_is_unloaded_and_loaded_again(system: System, http) -> None:
    admin = bearer(system, "all")
    served = http.get_model_metadata("semantic_id", headers=admin)["versions"]
    http.unload_model("semantic_id", headers=admin)
    try:
        assert not http.is_model_ready("semantic_id")
        assert not http.is_server_ready()
        with system.client() as client:
            answer = client.post("/v1/encode/tokenize", json={"texts": ["red"]})
            assert answer.status_code == 503
            assert answer.json()["title"] == "Temporarily unavailable"
    finally:
        http.load_model("semantic_id", headers=admin)
    assert http.is_server_ready()
    assert http.get_model_metadata("semantic_id", headers=admin)["versions"] == served


def test_embed_answers_in_json_and_in_binary(system: System) -> None:
    with system.client("read") as client:
        texts = client.post("/v1/encode/embed", json={"texts": ["red shoes", "a blue hat"]})
        assert texts.status_code == 200, texts.text
        vectors = np.asarray(texts.json()["vectors"], np.float32)
        assert vectors.shape == (2, 384)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
        assert texts.json()["model"] == "text_encoder"
        raw = client.post(
            "/v1/encode/embed",
            json={"texts": ["red shoes", "a blue hat"]},
            headers={"accept": "application/octet-stream"},
        )
        rows = np.frombuffer(raw.content, "<f4").reshape(2, 384)
        assert raw.headers["x-tessera-shape"] == "2,384"
        assert np.allclose(rows, vectors, atol=1e-5)
        data = [picture(1), picture(2)]
        encoded = {"images": [base64.b64encode(part).decode() for part in data]}
        as_json = client.post("/v1/encode/embed", json=encoded).json()
        files = [("images", ("a.jpg", part, "image/jpeg")) for part in data]
        as_form = client.post("/v1/encode/embed", files=files).json()
        assert as_json["model"] == "image_encoder"
        assert np.allclose(as_json["vectors"], as_form["vectors"], atol=1e-5)


def test_tokenize_takes_vectors_or_pairs(system: System) -> None:
    image = base64.b64encode(picture(3)).decode()
    with system.client("read") as client:
        pairs = {"images": [image, None, image], "texts": ["red shoes", "hat", None]}
        found = client.post("/v1/encode/tokenize", json=pairs).json()
        assert found["version"] == system.report["versions"]["active"]
        assert [len(row) for row in found["codes"]] == [6, 6, 6]
        assert [len(row) for row in found["margin"]] == [6, 6, 6]
        texts = client.post("/v1/encode/tokenize", json={"texts": ["hat"]}).json()
        assert texts["codes"] == found["codes"][1:2]
        vectors = client.post("/v1/encode/embed", json={"texts": ["hat"]}).json()["vectors"]
        again = client.post("/v1/encode/tokenize", json={"vectors": vectors}).json()
        assert again["codes"] == texts["codes"]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("embed", {}),
        ("embed", {"texts": []}),
        ("embed", {"texts": ["a"], "images": ["a"]}),
        ("embed", {"texts": [" "]}),
        ("embed", {"texts": [None]}),
        ("embed", {"texts": ["a"] * 1001}),
        ("embed", {"texts": ["a" * 20_001]}),
        ("embed", {"images": ["not base64!"]}),
        ("embed", {"images": ["aGVsbG8="]}),
        ("embed", {"images": [base64.b64encode(picture(1)[:300]).decode()]}),
        ("embed", {"unknown": 1}),
        ("tokenize", {}),
        ("tokenize", {"vectors": []}),
        ("tokenize", {"vectors": [[]]}),
        ("tokenize", {"vectors": [[1.0], [1.0, 2.0]]}),
        ("tokenize", {"vectors": [[1.0] * 383]}),
        ("tokenize", {"vectors": [[1e300] * 384]}),
        ("tokenize", {"vectors": [[1.0] * 384], "texts": ["a"]}),
        ("tokenize", {"images": [None], "texts": ["a", "b"]}),
        ("tokenize", {"images": [None], "texts": [None]}),
    ],
)
def test_what_cannot_be_encoded_is_a_problem(system: System, route: str, body: dict) -> None:
    with system.client("read") as client:
        answer = client.post(f"/v1/encode/{route}", json=body)
        assert answer.status_code in (400, 413, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


def test_examples_of_the_encode_page_work(system: System) -> None:
    with system.client("read") as client:
        paths = client.get("/v1/encode/openapi.json").json()["paths"]
        for route in ("/embed", "/tokenize"):
            content = paths[route]["post"]["requestBody"]["content"]["application/json"]
            assert len(content["examples"]) == 2
            for example in content["examples"].values():
                answer = client.post(f"/v1/encode{route}", json=example["value"])
                assert answer.status_code == 200, answer.text


def test_an_overloaded_model_refuses_at_once_and_says_when_to_come_back(
    system: System, grpc
) -> None:
    """A request that cannot be in time behind others is shed before it has waited for them."""
    routed = {"application": "image_encoder", **bearer(system)}
    request = service_pb2.ModelInferRequest(
        model_name="image_encoder",
        inputs=[{"name": "pixels", "datatype": "UINT8", "shape": [1, 96, 96, 3]}],
        raw_input_contents=[bytes(96 * 96 * 3)],
    )
    request.parameters["timeout"].int64_param = 20_000  # microseconds
    shed: list[plain.RpcError] = []
    large = pixels(triton_grpc, 500)
    deadline = time.monotonic() + 60
    with plain.insecure_channel(system.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while not shed and time.monotonic() < deadline:
            done = threading.Event()
            grpc.async_infer(
                "image_encoder", large, lambda result, error, d=done: d.set(), headers=routed
            )
            while not done.is_set() and not shed:
                try:
                    stub.ModelInfer(request, metadata=list(routed.items()), timeout=30)
                except plain.RpcError as error:
                    if error.code() == plain.StatusCode.RESOURCE_EXHAUSTED:
                        shed.append(error)
            assert done.wait(60)
    assert int(dict(shed[0].trailing_metadata())["retry-after"]) >= 1


def test_a_stream_goes_through_the_front_door(system: System, grpc) -> None:
    answers: queue.Queue = queue.Queue()
    routed = {"application": "image_encoder", **bearer(system)}
    grpc.start_stream(lambda result, error: answers.put((result, error)), headers=routed)
    for rows in (1, 2, 3):
        grpc.async_stream_infer("image_encoder", pixels(triton_grpc, rows), request_id=str(rows))
    for rows in (1, 2, 3):
        result, error = answers.get(timeout=60)
        assert error is None
        assert result.get_response().id == str(rows)
        assert result.as_numpy("image_features").shape == (rows, 384)
    grpc.stop_stream()


def test_vectors_come_in_half_precision_when_asked(system: System) -> None:
    data = base64.b64encode(picture(1)).decode()
    with system.client("read") as client:
        full = client.post("/v1/encode/embed", json={"images": [data]}).json()["vectors"]
        body = {"images": [data], "dtype": "float16"}
        binary = {"accept": "application/octet-stream"}
        half = client.post("/v1/encode/embed", json=body, headers=binary)
        assert half.headers["x-tessera-dtype"] == "float16"
        rows = np.frombuffer(half.content, "<f2").reshape(1, 384)
        assert np.array_equal(rows, np.asarray(full, np.float32).astype(np.float16))
        as_json = client.post("/v1/encode/embed", json=body).json()["vectors"]
        assert np.array_equal(np.asarray(as_json, np.float16), rows)
        files = {"images": ("a.jpg", picture(1), "image/jpeg"), "dtype": (None, "float16")}
        form = client.post("/v1/encode/embed", files=files, headers=binary)
        assert np.array_equal(np.frombuffer(form.content, "<f2").reshape(1, 384), rows)
        assert client.post("/v1/encode/embed", json={**body, "dtype": "int8"}).status_code == 400


def test_a_deadline_of_the_request_reaches_the_models(system: System) -> None:
    with system.client("read") as client:
        for route in ("embed", "tokenize"):
            late = client.post(
                f"/v1/encode/{route}",
                json={"texts": [f"words that nobody has sent before, to {route}"]},
                headers={"x-request-timeout-seconds": "0.0005"},
            )
            assert late.status_code in (408, 429, 504), late.text
