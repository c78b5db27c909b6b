"""Broken requests over HTTP: an error in the protocol's own form, never a 5xx or a traceback."""

import gzip
import json
import struct
import zlib

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.models.datatypes import PROTOCOL_NAMES, to_raw
from serving.models.rest import HEADER_LENGTH

X = {"name": "x", "shape": [3], "datatype": "FP32"}
DEEP = json.loads("[" * 900 + "1" + "]" * 900)


@pytest.fixture(scope="module")
def client(front):
    with httpx.Client(base_url=f"http://{front.http}/v2/models") as client:
        yield client


def post(client: httpx.Client, body: object, model: str = "fixed", **headers: str):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(f"/{model}/infer", content=content, headers=headers)


def refused(response: httpx.Response) -> str:
    """The error's text, after checking that it is one of the caller's."""
    assert 400 <= response.status_code < 500, response.text
    document = response.json()
    assert set(document) == {"error"}
    assert "Traceback" not in document["error"]
    assert len(document["error"]) < 3_000  # whatever it quotes
    return document["error"]


def binary(head: dict, *tails: bytes, length: object = None) -> tuple[bytes, dict[str, str]]:
    encoded = json.dumps(head).encode()
    value = str(len(encoded) if length is None else length)
    return encoded + b"".join(tails), {HEADER_LENGTH: value}


def with_size(size: object) -> dict:
    return {"inputs": [{**X, "parameters": {"binary_data_size": size}}]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        {},
        {"inputs": {}},
        {"inputs": []},
        {"inputs": [1]},
        {"inputs": [{"name": 1}]},
        {"inputs": [{**X}]},
        {"inputs": [{**X, "data": 7}]},
        {"inputs": [{**X, "data": [1, 2]}]},
        {"inputs": [{**X, "data": [1, 2, 3, 4]}]},
        {"inputs": [{**X, "data": [1, [2], 3]}]},
        {"inputs": [{**X, "data": [[1, 2], [3]], "shape": [2, 2]}]},
        {"inputs": [{**X, "data": [1, "2", 3]}]},
        {"inputs": [{**X, "data": [1, None, 3]}]},
        {"inputs": [{**X, "data": [1e300, 2, 3]}]},
        {"inputs": [{**X, "data": [True, False, True]}]},
        {"inputs": [{**X, "data": [1, 2, 3], "shape": [-3]}]},
        {"inputs": [{**X, "data": [1, 2, 3], "shape": "3"}]},
        {"inputs": [{**X, "data": [1, 2, 3], "shape": [3.0]}]},
        {"inputs": [{**X, "data": [1, 2, 3], "shape": [True, 3]}]},
        {"inputs": [{**X, "data": [], "shape": [0, 10**12]}]},
        {"inputs": [{**X, "data": [], "shape": [0]}]},
        {"inputs": [{**X, "data": [], "shape": [2**31 - 1] * 32}]},
        {"inputs": [{**X, "data": [1, 2, 3], "datatype": "fp32"}]},
        {"inputs": [{**X, "data": [1, 2, 3], "datatype": None}]},
        {"inputs": [{**X, "data": [1, 2, 3], "datatype": "BF16"}]},
        {"inputs": [{**X, "data": [1, 2, 3], "datatype": DEEP}]},
        {"inputs": [{**X, "data": [1, 2, 3], "shape": DEEP}]},
        {"inputs": [{**X, "data": DEEP}]},
        {"inputs": [{**X, "data": [1, 2, 3]}], "outputs": DEEP},
        {"inputs": [{**X, "data": [1, 2, 3]}], "parameters": {"graph": DEEP}},
        {"inputs": [{**X, "data": [1, 2, 3]}], "parameters": {"graph": "g" * 100_000}},
        {"inputs": [{**X, "data": [1, 2, 3], "datatype": "FP16"}]},
        {"inputs": [{**X, "data": [1, 2, 3], "datatype": "INT64"}]},
        {"inputs": [{**X, "data": [300, 2, 3], "datatype": "UINT8"}]},
        {"inputs": [{**X, "data": [1.5, 2, 3], "datatype": "INT32"}]},
        {"inputs": [{**X, "data": [1, 2, 3]}] * 2},
        {"inputs": [{**X, "data": [1, 2, 3], "parameters": 3}]},
        {"inputs": [{**X, "parameters": {"shared_memory_region": "a"}}]},
        {"inputs": [{**X, "data": [1, 2, 3]}], "outputs": {"name": "total"}},
        {"inputs": [{**X, "data": [1, 2, 3]}], "outputs": [{}]},
        {"inputs": [{**X, "data": [1, 2, 3]}], "outputs": [{"name": "nope"}]},
        {"inputs": [{**X, "data": [1, 2, 3]}], "id": 7},
        {"inputs": [{**X, "data": [1, 2, 3]}], "parameters": {"priority": "high"}},
        {"inputs": [{**X, "data": [1, 2, 3]}], "parameters": {"timeout": -1}},
        {"inputs": [{**X, "data": [1, 2, 3]}], "parameters": {"graph": 3}},
        {"inputs": [{**X, "data": [1, 2, 3]}], "parameters": {"deep": {"a": 1}}},
    ],
)
def test_broken_json_is_refused(client: httpx.Client, body: object) -> None:
    refused(post(client, body))


def test_the_same_request_in_order_is_answered(client: httpx.Client) -> None:
    for data in ([1, 2, 3], [[1], [2.0], [3]], [1.5, 2.5, 2]):
        response = post(client, {"inputs": [{**X, "data": data}]})
        assert response.status_code == 200
        assert response.json()["outputs"][0] == {
            "name": "total",
            "datatype": "FP32",
            "shape": [],
            "data": [6.0],
        }


def test_scalars_are_one_row(client: httpx.Client) -> None:
    tensor = {"name": "x", "shape": [], "datatype": "FP32", "data": [2.5]}
    response = post(client, {"inputs": [tensor]}, "scalar")
    assert response.json()["outputs"][0]["data"] == [2.5]
    stats = client.get("/scalar/stats").json()["model_stats"][0]
    assert stats["inference_count"] == stats["execution_count"] == 1


@pytest.mark.parametrize("length", [-1, "", "abc", "1e3", 10**6, 10**30, "٣", 0, 5])
def test_absurd_header_lengths_are_refused(client: httpx.Client, length: object) -> None:
    body, _ = binary(with_size(12), b"\0" * 12)
    headers = {HEADER_LENGTH.encode(): str(length).encode()}
    refused(client.post("/fixed/infer", content=body, headers=headers))


@pytest.mark.parametrize("size", [-1, 11, 13, 10**20, "12", 12.0, True, None])
def test_wrong_binary_sizes_are_refused(client: httpx.Client, size: object) -> None:
    body, headers = binary(with_size(size), b"\0" * 12)
    refused(post(client, body, **headers))


def test_binary_bodies_must_end_where_the_tensors_do(client: httpx.Client) -> None:
    good, headers = binary(with_size(12), struct.pack("<3f", 1, 2, 3))
    assert post(client, good, **headers).json()["outputs"][0]["data"] == [6.0]
    for cut in (1, 5, 12):
        assert "bytes are left" in refused(post(client, good[:-cut], **headers))
    assert "follow the last" in refused(post(client, good + b"\0", **headers))


@pytest.mark.parametrize("wrap", [gzip.compress, zlib.compress])
def test_compressed_bodies(client: httpx.Client, wrap) -> None:
    encoding = "gzip" if wrap is gzip.compress else "deflate"
    plain = json.dumps({"inputs": [{**X, "data": [1, 2, 3]}]}).encode()
    packed = wrap(plain)
    assert post(client, packed, **{"content-encoding": encoding}).status_code == 200
    assert "too early" in refused(post(client, packed[:-9], **{"content-encoding": encoding}))
    refused(post(client, plain, **{"content-encoding": encoding}))
    bomb = wrap(b" " * (80 << 20))
    response = post(client, bomb, **{"content-encoding": encoding})
    assert response.status_code == 413
    assert "unpacks to more than" in refused(response)


def test_unknown_encodings_are_unsupported(client: httpx.Client) -> None:
    response = post(client, b"x", **{"content-encoding": "br"})
    assert response.status_code == 415
    refused(response)


def test_answers_are_compressed_only_when_one_encoding_is_named(client: httpx.Client) -> None:
    zeros = {"name": "features", "datatype": "FP32", "shape": [60, 12], "data": [0.5] * 720}
    named = post(client, {"inputs": [zeros]}, "semantic_id", **{"accept-encoding": "gzip"})
    assert named.headers["content-encoding"] == "gzip"
    usual = {"accept-encoding": "gzip, deflate"}
    plain = post(client, {"inputs": [zeros]}, "semantic_id", **usual)
    assert "content-encoding" not in plain.headers
    assert plain.json() == named.json()


def test_routes_that_are_not_there(client: httpx.Client) -> None:
    refused(client.get("/fixed/nothing"))
    refused(client.get("/fixed/infer"))
    refused(client.get("/fixed/versions/9"))
    refused(client.get("/fixed/versions/9/config"))
    refused(client.get("/fixed?graph=nothing"))
    assert client.get("/fixed/versions/9/ready").status_code == 400
    assert client.get("/fixed/versions/1").json() == client.get("/fixed").json()
    decode = client.get("/semantic_id?graph=decode").json()
    assert decode["inputs"][0]["name"] == "codes"


@pytest.mark.parametrize("model", ["fixed", "image_encoder", "semantic_id", "text_encoder"])
def test_examples_of_the_documentation_work(client: httpx.Client, model: str) -> None:
    assert client.get(f"/{model}/docs").status_code == 200
    paths = client.get(f"/{model}/openapi.json").json()["paths"]
    content = paths["/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert content["examples"]
    for example in content["examples"].values():
        response = post(client, example["value"], model)
        assert response.status_code == 200, response.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)
inputs = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | json_values,
        "shape": st.just([3]) | st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "datatype": st.sampled_from(["FP32", "INT8", "BYTES", "BOOL"]) | json_values,
        "data": st.just([1, 2, 3]) | json_values,
        "parameters": st.fixed_dictionaries({"binary_data_size": json_values}) | json_values,
    },
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(inputs, max_size=3) | json_values},
    optional={"id": json_values, "outputs": json_values, "parameters": json_values},
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(request=requests, tail=st.binary(max_size=16), length=st.none() | st.integers(0, 200))
def test_no_request_is_a_server_error(
    client: httpx.Client, request: dict, tail: bytes, length: int | None
) -> None:
    headers = {} if length is None else {HEADER_LENGTH: str(length)}
    response = post(client, json.dumps(request).encode() + tail, **headers)
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        assert set(response.json()) == {"error"}


def test_fp16_travels_as_binary(client: httpx.Client, front) -> None:
    graph = front.models["every_type"].servable.manifest.graphs["model"]
    tensors, tails = [], []
    for spec in graph.inputs:
        strings = spec.dtype == "object"
        array = np.full((1, 2), "a", np.object_) if strings else np.zeros((1, 2), spec.dtype)
        tails.append(to_raw(array))
        size = {"binary_data_size": len(tails[-1])}
        kind = PROTOCOL_NAMES[spec.dtype]
        tensors.append({"name": spec.name, "shape": [1, 2], "datatype": kind, "parameters": size})
    body, headers = binary({"inputs": tensors}, *tails)
    assert "ask for it as binary" in refused(post(client, body, "every_type", **headers))
    head = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    body, headers = binary(head, *tails)
    assert post(client, body, "every_type", **headers).status_code == 200
