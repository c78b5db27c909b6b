"""The stock Open Inference Protocol clients against a model: http, grpc, and both in asyncio."""

import queue

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from export.manifest import DTYPES

RNG = np.random.default_rng(0)
HEADERS = {"application": "every_type"}


def arrays(rows: int) -> dict[str, np.ndarray]:
    """One array a datatype, as the graph `every_type` takes them."""
    made = {}
    for dtype in sorted(DTYPES):
        if dtype == "object":
            made[f"in_{dtype}"] = np.array([[b"red", "blé".encode()]] * rows, np.object_)
        else:
            made[f"in_{dtype}"] = RNG.integers(0, 2, (rows, 2)).astype(dtype)
    return made


def inputs(mod: object, tensors: dict[str, np.ndarray]) -> list:
    made = []
    for name, array in tensors.items():
        tensor = mod.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def check(result: object, tensors: dict[str, np.ndarray]) -> None:
    for name, array in tensors.items():
        found = result.as_numpy(name.replace("in_", "out_"))
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


@pytest.fixture
def http(front):
    with triton_http.InferenceServerClient(front.http) as client:
        yield client


@pytest.fixture
def grpc(front):
    with triton_grpc.InferenceServerClient(front.grpc) as client:
        yield client


@pytest.mark.parametrize("rows", [1, 7, 20])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_http_carries_every_datatype(http, rows: int, compression: str | None) -> None:
    tensors = arrays(rows)
    result = http.infer(
        "every_type",
        inputs(triton_http, tensors),
        request_id="seven",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    check(result, tensors)
    response = result.get_response()
    assert (response["id"], response["model_version"]) == ("seven", "1")


@pytest.mark.parametrize("rows", [1, 7, 20])
def test_grpc_carries_every_datatype(grpc, rows: int) -> None:
    tensors = arrays(rows)
    result = grpc.infer("every_type", inputs(triton_grpc, tensors), headers=HEADERS)
    check(result, tensors)


async def test_the_asyncio_clients_work(front) -> None:
    tensors = arrays(3)
    async with triton_http_aio.InferenceServerClient(front.http) as client:
        check(await client.infer("every_type", inputs(triton_http_aio, tensors)), tensors)
    async with triton_grpc_aio.InferenceServerClient(front.grpc) as client:
        made = inputs(triton_grpc_aio, tensors)
        check(await client.infer("every_type", made, headers=HEADERS), tensors)


def test_a_stream_answers_each_request_in_order(grpc) -> None:
    answers: queue.Queue = queue.Queue()
    grpc.start_stream(lambda result, error: answers.put((result, error)), headers=HEADERS)
    sent = [arrays(1 + number % 3) for number in range(50)]
    for number, tensors in enumerate(sent):
        made = inputs(triton_grpc, tensors)
        name = "nobody" if number == 7 else "every_type"
        grpc.async_stream_infer(name, made, request_id=str(number))
    for number, tensors in enumerate(sent):
        result, error = answers.get(timeout=30)
        if number == 7:  # a refusal ends neither the stream nor its neighbours
            assert "serves the model of that name" in str(error)
        else:
            assert error is None
            assert result.get_response().id == str(number)
            check(result, tensors)
    grpc.stop_stream()


def test_outputs_are_chosen_by_name_and_form(http) -> None:
    tensors = arrays(2)
    outputs = [
        triton_http.InferRequestedOutput("out_float32", binary_data=False),
        triton_http.InferRequestedOutput("out_int64", binary_data=True),
    ]
    result = http.infer("every_type", inputs(triton_http, tensors), outputs=outputs)
    first, second = result.get_response()["outputs"]
    assert (first["name"], second["name"]) == ("out_float32", "out_int64")
    assert "data" in first
    assert second["parameters"]["binary_data_size"] == 32
    assert np.array_equal(result.as_numpy("out_float32"), tensors["in_float32"])
    assert np.array_equal(result.as_numpy("out_int64"), tensors["in_int64"])


def test_json_tensors_work_both_ways(http) -> None:
    tensor = triton_http.InferInput("x", [3], "FP32")
    tensor.set_data_from_numpy(np.asarray([1, 2, 4], np.float32), binary_data=False)
    output = triton_http.InferRequestedOutput("total", binary_data=False)
    result = http.infer("fixed", [tensor], outputs=[output])
    assert result.as_numpy("total") == 7


@pytest.mark.parametrize("version", ["", "1"])
def test_metadata_config_and_health(http, grpc, version: str) -> None:
    over_http = http.get_model_metadata("every_type", version)
    over_grpc = grpc.get_model_metadata("every_type", version, headers=HEADERS, as_json=True)
    assert over_http["inputs"][0]["shape"] == [-1, 2]
    assert [t["name"] for t in over_http["inputs"]] == [t["name"] for t in over_grpc["inputs"]]
    assert over_grpc["versions"] == over_http["versions"] == ["1"]
    config = http.get_model_config("every_type", version)
    found = grpc.get_model_config("every_type", version, headers=HEADERS, as_json=True)["config"]
    assert config["max_batch_size"] == found["max_batch_size"] == 8
    assert config["input"][0]["dims"] == [2]
    assert [t["data_type"] for t in config["input"]] == [t["data_type"] for t in found["input"]]
    assert http.is_model_ready("every_type", version)
    assert grpc.is_model_ready("every_type", version, headers=HEADERS)
    assert not http.is_model_ready("every_type", "9")
    assert not grpc.is_model_ready("every_type", "9", headers=HEADERS)
    assert grpc.is_server_live()
    assert grpc.is_server_ready()
    assert "statistics" in grpc.get_server_metadata().extensions
    assert http.get_model_config("fixed")["max_batch_size"] == 0


def test_statistics_count_rows_and_batches(http, grpc) -> None:
    def read() -> dict:
        return http.get_inference_statistics("every_type")["model_stats"][0]

    before = read()
    http.infer("every_type", inputs(triton_http, arrays(1)))  # one row: always one batch
    with pytest.raises(InferenceServerException):
        http.infer("every_type", inputs(triton_http, {"wrong": np.zeros((1, 2), np.float32)}))
    after = read()
    assert after["inference_count"] - before["inference_count"] == 1
    assert after["execution_count"] - before["execution_count"] == 1
    for kind, count in (("success", 1), ("queue", 1), ("compute_infer", 1), ("fail", 1)):
        now, then = after["inference_stats"][kind], before["inference_stats"][kind]
        assert now["count"] - then["count"] == count
        assert now["ns"] > then["ns"]
    over_grpc = grpc.get_inference_statistics("every_type", headers=HEADERS, as_json=True)
    assert int(over_grpc["model_stats"][0]["inference_count"]) == after["inference_count"]


def test_graphs_are_chosen_by_parameter(front) -> None:
    codes = np.zeros((2, 6), np.int32)
    with triton_http.InferenceServerClient(front.http) as client:
        made = inputs(triton_http, {"codes": codes})
        result = client.infer("semantic_id", made, parameters={"graph": "decode"})
        assert result.as_numpy("features_hat").shape == (2, 12)
        with pytest.raises(InferenceServerException, match="no graph 'nope'"):
            client.infer("semantic_id", made, parameters={"graph": "nope"})
        features = inputs(triton_http, {"features": np.ones((2, 12), np.float32)})
        assert client.infer("semantic_id", features).as_numpy("codes").shape == (2, 6)
    with triton_grpc.InferenceServerClient(front.grpc) as client:
        made = inputs(triton_grpc, {"codes": codes})
        result = client.infer(
            "semantic_id",
            made,
            parameters={"graph": "decode"},
            headers={"application": "semantic_id"},
        )
        assert result.as_numpy("features_hat").shape == (2, 12)


def test_priority_and_timeout_are_honoured(http, grpc) -> None:
    made = inputs(triton_http, arrays(1))
    check(http.infer("every_type", made, priority=1, timeout=5_000_000), {})
    for client, module, options in (
        (http, triton_http, {}),
        (grpc, triton_grpc, {"headers": HEADERS}),
    ):
        made = inputs(module, arrays(1))
        with pytest.raises(InferenceServerException, match=r"deadline|are left"):
            client.infer("every_type", made, timeout=1, **options)
        with pytest.raises(InferenceServerException, match="priority: expected"):
            client.infer("every_type", made, priority=99, **options)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"x": np.zeros((4,), np.float32)}, r"expected FP32 \[3\], found FP32 \[4\]"),
        ({"x": np.zeros((3,), np.float64)}, r"found FP64 \[3\]"),
        ({"x": np.zeros((1, 3), np.float32)}, r"found FP32 \[1, 3\]"),
        ({"x": np.zeros((0,), np.float32)}, r"found FP32 \[0\]"),
        ({"y": np.zeros((3,), np.float32)}, r"expected the inputs \['x'\], found \['y'\]"),
    ],
)
def test_what_the_graph_does_not_take_is_named(http, grpc, tensors: dict, message: str) -> None:
    with pytest.raises(InferenceServerException, match=message) as over_http:
        http.infer("fixed", inputs(triton_http, tensors))
    assert over_http.value.status() == "400"
    with pytest.raises(InferenceServerException, match=message) as over_grpc:
        grpc.infer("fixed", inputs(triton_grpc, tensors), headers={"application": "fixed"})
    assert over_grpc.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_empty_batches_unequal_axes_and_wild_values_are_refused(http) -> None:
    def ask(ids: tuple[int, int], mask: tuple[int, int], value: int = 0) -> None:
        made = {
            "input_ids": np.full(ids, value, np.int64),
            "attention_mask": np.ones(mask, np.int64),
        }
        http.infer("text_encoder", inputs(triton_http, made))

    ask((2, 3), (2, 3))
    for ids, mask, message in (
        ((0, 3), (0, 3), "axis 'batch' is empty"),
        ((2, 0), (2, 0), "axis 'tokens' is empty"),
        ((2, 3), (3, 3), "axis 'batch' is 3 here and 2"),
        ((1, 9000), (1, 9000), "at most 8192"),
        ((65, 3), (65, 3), "at most 64 a request"),
    ):
        with pytest.raises(InferenceServerException, match=message):
            ask(ids, mask)
    with pytest.raises(InferenceServerException, match="could not compute"):
        ask((2, 3), (2, 3), value=-99)


def test_unknown_names_and_versions_are_not_found(http, grpc) -> None:
    made = inputs(triton_http, arrays(1))
    with pytest.raises(InferenceServerException, match="version 9") as error:
        http.infer("every_type", made, model_version="9")
    assert error.value.status() == "404"
    output = triton_http.InferRequestedOutput("nothing")
    with pytest.raises(InferenceServerException, match="output 'nothing'"):
        http.infer("every_type", made, outputs=[output])
    with pytest.raises(InferenceServerException, match="serves the model of that name"):
        grpc.get_model_metadata("other", headers=HEADERS)


def test_grpc_contents_must_fit_the_inputs(front) -> None:
    import grpc as plain
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    tensor = service_pb2.ModelInferRequest.InferInputTensor
    metadata = [("application", "fixed")]

    def request(**fields: object) -> object:
        return service_pb2.ModelInferRequest(model_name="fixed", **fields)

    x = {"name": "x", "datatype": "FP32", "shape": [3]}
    typed = tensor(**x, contents={"fp32_contents": [1, 2, 3]})
    with plain.insecure_channel(front.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request(inputs=[typed]), metadata=metadata)
        assert np.frombuffer(answer.raw_output_contents[0], np.float32) == 6
        bad = [
            request(inputs=[tensor(**x)], raw_input_contents=[b"\0" * 11]),
            request(inputs=[tensor(**x)], raw_input_contents=[b"", b""]),
            request(inputs=[tensor(**x), tensor(**x)], raw_input_contents=[b"", b""]),
            request(inputs=[tensor(**x, contents={"fp32_contents": [1]})]),
            request(inputs=[tensor(**x, contents={"int_contents": [1, 2, 3]})]),
            request(inputs=[tensor(**{**x, "datatype": "BF16"})]),
            request(inputs=[tensor(**{**x, "datatype": "FP16"})]),
            request(inputs=[tensor(**{**x, "shape": [-3]})]),
            request(inputs=[tensor(**{**x, "shape": [2**62, 2**62]})]),
            request(inputs=[tensor(**{**x, "shape": [1] * 40})]),
            request(),
        ]
        for broken in bad:
            with pytest.raises(plain.RpcError) as error:
                stub.ModelInfer(broken, metadata=metadata)
            assert error.value.code() == plain.StatusCode.INVALID_ARGUMENT
