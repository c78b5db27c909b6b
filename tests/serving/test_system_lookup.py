"""Lookups over HTTP and gRPC: the contract, row by row."""

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from feature_store import Status
from serving.lookup import lookup_pb2, lookup_pb2_grpc
from serving.lookup.rows import flag_names
from tests.serving.support import GOOD, System

NEVER = 9_000_000_000
ANSWER = {"version", "codes", "status", "flags", "degraded"}


def ask(system: System, key: str | None = "read", **asked: object) -> httpx.Response:
    body = {"deadline_ms": 5000} | asked  # a busy machine is no wrong answer
    with system.client(key) as client:
        return client.post("/v1/lookup", json=body)


def good_ids(system: System) -> list[int]:
    """Ids of the creatives that are pictures: 1..n by sorted path."""
    paths = sorted(
        p.relative_to(system.creatives).as_posix() for p in system.creatives.rglob("*.jpg")
    )
    return [i for i, p in enumerate(paths, 1) if not p.endswith(("text.jpg", "torn.jpg"))]


def test_what_was_ingested_is_found(system: System) -> None:
    ids = good_ids(system)
    assert len(ids) == GOOD
    answer = ask(system, ad_ids=ids).json()
    assert set(answer) == ANSWER
    assert answer["status"] == ["HIT"] * GOOD
    assert len(answer["flags"]) == GOOD  # PENDING, or what the judge said by now
    assert answer["degraded"] is None
    assert answer["version"] == system.report["versions"]["active"]
    codes = np.array(answer["codes"])
    assert codes.shape == (GOOD, 6)
    assert codes.min() >= 0
    assert len(np.unique(codes, axis=0)) > 1


def test_order_and_duplicates_are_kept_and_ids_may_be_strings(system: System) -> None:
    first, second = good_ids(system)[:2]
    ids = [second, NEVER, str(first), second, str(2**63 - 1)]
    answer = ask(system, ad_ids=ids).json()
    assert answer["status"] == ["HIT", "MISS", "HIT", "HIT", "MISS"]
    assert answer["codes"][1] is None
    assert answer["codes"][0] == answer["codes"][3]
    assert answer["flags"][1] == []
    assert answer["codes"][2] == ask(system, ad_ids=[first]).json()["codes"][0]


def test_a_hundred_thousand_ids_are_answered(system: System) -> None:
    ids = [*range(NEVER, NEVER + 99_999), good_ids(system)[0]]
    answer = ask(system, ad_ids=ids, deadline_ms=5_000).json()
    assert len(answer["status"]) == len(answer["codes"]) == len(answer["flags"]) == 100_000
    assert answer["status"].count("MISS") == 99_999
    assert answer["status"][-1] == "HIT"


def test_a_version_can_be_pinned(system: System) -> None:
    ids = good_ids(system)
    version = system.report["versions"]["active"]
    pinned, active = (ask(system, ad_ids=ids, version=v).json() for v in (version, None))
    del pinned["flags"], active["flags"]  # the judge may have said something in between
    assert pinned == active
    unknown = ask(system, ad_ids=ids, version="e0-s0")
    assert unknown.status_code == 404
    assert unknown.json()["type"].endswith("not-found")
    assert "e0-s0" in unknown.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"ad_ids": []},
        {"ad_ids": list(range(1, 100_002))},
        {"ad_ids": [0]},
        {"ad_ids": [-1]},
        {"ad_ids": [2**63]},
        {"ad_ids": [2**70]},
        {"ad_ids": ["9223372036854775808"]},
        {"ad_ids": [1.5]},
        {"ad_ids": [1.0]},
        {"ad_ids": [True]},
        {"ad_ids": [None]},
        {"ad_ids": ["x"]},
        {"ad_ids": [""]},
        {"ad_ids": ["+1"]},
        {"ad_ids": [" 1"]},
        {"ad_ids": ["1_0"]},
        {"ad_ids": ["\u0661"]},
        {"ad_ids": [[1]]},
        {"ad_ids": "1"},
        {"ad_ids": {"1": 1}},
        {},
        {"ad_ids": [1], "version": 5},
        {"ad_ids": [1], "version": ""},
        {"ad_ids": [1], "deadline_ms": 0},
        {"ad_ids": [1], "deadline_ms": "soon"},
        {"ad_ids": [1], "colour": "red"},
    ],
    ids=lambda body: str(body)[:40],
)
def test_a_wrong_request_is_a_problem_and_nothing_else_changes(
    system: System, body: dict[str, object]
) -> None:
    answer = ask(system, **body)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) >= {"type", "title", "detail", "status"}
    assert "Traceback" not in answer.text
    assert ask(system, ad_ids=good_ids(system)).json()["status"] == ["HIT"] * GOOD


def call(
    system: System, request: lookup_pb2.LookupRequest, key: str | None = "read"
) -> lookup_pb2.LookupResponse:
    with grpc.insecure_channel(system.grpc) as channel:
        stub = lookup_pb2_grpc.LookupStub(channel)
        metadata = system.metadata("lookup", key)
        answer: lookup_pb2.LookupResponse = stub.Lookup(request, metadata=metadata, timeout=30)
    return answer


def columns(*ids: int) -> bytes:
    return np.array(ids, "<i8").tobytes()


def test_grpc_answers_the_same_in_columns(system: System) -> None:
    ids = [*good_ids(system), NEVER]
    over_http, after = ask(system, ad_ids=ids).json(), None
    while after != over_http:  # until the judge says nothing in between; it ends with its ads
        request = lookup_pb2.LookupRequest(ad_ids=columns(*ids), deadline_ms=5000)
        answer, after = call(system, request), over_http
        over_http = ask(system, ad_ids=ids).json()
    codes = np.frombuffer(answer.codes, "<u2").reshape(-1, 6)
    status = np.frombuffer(answer.status, np.uint8)
    assert codes[:-1].tolist() == over_http["codes"][:-1]
    assert (codes[-1] == 65535).all()
    assert [Status(s).name for s in status] == over_http["status"]
    flags = np.frombuffer(answer.flags, "<u2").tolist()
    assert [flag_names(value) for value in flags] == over_http["flags"]
    assert answer.version == over_http["version"]
    assert not answer.degraded


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (lookup_pb2.LookupRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        (lookup_pb2.LookupRequest(ad_ids=b"123"), grpc.StatusCode.INVALID_ARGUMENT),
        (lookup_pb2.LookupRequest(ad_ids=columns(0)), grpc.StatusCode.INVALID_ARGUMENT),
        (lookup_pb2.LookupRequest(ad_ids=columns(-5)), grpc.StatusCode.INVALID_ARGUMENT),
        (
            lookup_pb2.LookupRequest(ad_ids=columns(*range(1, 100_002))),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (lookup_pb2.LookupRequest(ad_ids=columns(1), version="e0-s0"), grpc.StatusCode.NOT_FOUND),
    ],
)
def test_a_wrong_grpc_request_has_a_code_and_words(
    system: System, request_: lookup_pb2.LookupRequest, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call(system, request_)
    assert raised.value.code() == code
    assert raised.value.details()


def test_grpc_needs_a_key_with_the_scope(system: System) -> None:
    request = lookup_pb2.LookupRequest(ad_ids=columns(1))
    for key, code in (
        (None, grpc.StatusCode.UNAUTHENTICATED),
        ("write", grpc.StatusCode.PERMISSION_DENIED),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            call(system, request, key)
        assert raised.value.code() == code


@pytest.mark.parametrize("application", ["lookup", "ingest", "encode", "checks", "models"])
def test_an_rpc_of_other_applications_is_unimplemented(system: System, application: str) -> None:
    with grpc.insecure_channel(system.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest()
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(request, metadata=system.metadata(application), timeout=30)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert application in raised.value.details()
