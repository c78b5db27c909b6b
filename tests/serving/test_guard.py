"""The guard and the app around it, without Ray: every kind of refusal is a problem."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from serving import http
from serving.errors import UnavailableError
from serving.metrics import MemoryMetrics
from serving.replica import Replica
from serving.schema import BlockRequest

PREFIX = "/v1/room"
LIMIT = 1000


def make(prefix: str = PREFIX, keys: Path | None = None) -> tuple[FastAPI, MemoryMetrics]:
    replica = Replica.local("room", prefix, keys)

    async def ready() -> None:
        raise UnavailableError("the store is away")

    app = http.create_app(replica, body_limit_bytes=LIMIT, ready=ready)

    @app.post("", dependencies=[http.requires("write")])
    async def echo(request: Request) -> BlockRequest:
        return await http.json_body(request, BlockRequest)

    @app.get("/typed/{number}")
    async def typed(number: int) -> dict[str, int]:
        return {"number": number}

    @app.post("/broken")
    async def broken_after_the_body(request: Request) -> None:
        await request.body()
        raise ZeroDivisionError("a secret of the code")

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("a secret of the code")

    assert isinstance(replica.metrics, MemoryMetrics)
    return app, replica.metrics


def client(app: FastAPI, prefix: str = PREFIX) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, root_path=prefix)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def room() -> AsyncIterator[tuple[httpx.AsyncClient, MemoryMetrics]]:
    app, metrics = make()
    async with client(app) as http_client:
        yield http_client, metrics


async def test_the_route_equal_to_the_prefix_answers(
    room: tuple[httpx.AsyncClient, MemoryMetrics],
) -> None:
    http_client, metrics = room
    answer = await http_client.post(PREFIX, json={"reason": "x"})
    assert (answer.status_code, answer.json()) == (200, {"reason": "x"})
    assert metrics.total("tessera_requests", route=PREFIX, status="200") == 1
    assert metrics.count("tessera_request_latency_ms", route=PREFIX) == 1
    assert metrics.total("tessera_errors") == 0


BROKEN = {"content": b"{", "headers": {"content-type": "application/json"}}
PLAIN = {"content": b"x", "headers": {"content-type": "text/plain"}}
PACKED = {"json": {}, "headers": {"content-encoding": "gzip"}}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "slug"),
    [
        ("POST", "", BROKEN, 400, "invalid-request"),
        ("POST", "", {"json": []}, 400, "invalid-request"),
        ("POST", "", {"json": {"colour": 1}}, 400, "invalid-request"),
        ("POST", "", {"json": {"reason": 1}}, 400, "invalid-request"),
        ("POST", "", PLAIN, 415, "unsupported-media-type"),
        ("POST", "", {"content": b"x"}, 415, "unsupported-media-type"),
        ("POST", "", PACKED, 415, "unsupported-media-type"),
        ("POST", "", {"json": {"reason": "x" * LIMIT}}, 413, "body-too-large"),
        ("GET", "/typed/one", {}, 400, "invalid-request"),
        ("GET", "/nowhere", {}, 404, "not-found"),
        ("GET", "", {}, 405, "method-not-allowed"),
        ("GET", "/broken", {}, 500, "internal"),
        ("GET", "/readyz", {}, 503, "unavailable"),
    ],
)
async def test_every_refusal_is_a_problem(
    room: tuple[httpx.AsyncClient, MemoryMetrics],
    method: str,
    path: str,
    body: dict[str, object],
    status: int,
    slug: str,
) -> None:
    http_client, metrics = room
    answer = await http_client.request(method, PREFIX + path, **body)  # type: ignore[arg-type]
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:tessera:problem:{slug}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert "secret" not in answer.text
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)
    assert metrics.total("tessera_errors", problem=slug) == 1


async def test_a_body_without_a_length_is_bounded_too(
    room: tuple[httpx.AsyncClient, MemoryMetrics],
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    headers = {"content-type": "application/json"}
    answer = await room[0].post(PREFIX, content=chunks(), headers=headers)
    assert answer.status_code == 413


async def test_a_client_that_hangs_up_is_no_failure_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, metrics = make()
    first: dict[str, Any] = {"type": "http.request", "body": b"{", "more_body": True}
    heard, sent = [first], list[Any]()

    async def receive() -> dict[str, Any]:
        return heard.pop() if heard else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": PREFIX, "root_path": PREFIX}
    await app(scope | {"headers": headers, "query_string": b""}, receive, send)
    assert sent[0]["status"] == 499
    assert metrics.total("tessera_errors", problem="client-gone") == 1
    assert metrics.total("tessera_errors", problem="internal") == 0
    assert "Traceback" not in caplog.text


async def test_request_ids_are_kept_or_made(
    room: tuple[httpx.AsyncClient, MemoryMetrics],
) -> None:
    kept = await room[0].get(f"{PREFIX}/nowhere", headers={"x-request-id": "abc"})
    made = await room[0].get(f"{PREFIX}/healthz")
    assert kept.json()["instance"] == "urn:request:abc"
    assert len(made.headers["x-request-id"]) == 32


async def test_under_v2_errors_have_the_protocols_form() -> None:
    app, _ = make("/v2/models/m")
    async with client(app, "/v2/models/m") as http_client:
        answer = await http_client.get("/v2/models/m/nowhere")
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}


async def test_keys_and_scopes(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    entries = [
        {"name": n, "key_sha256": hashlib.sha256(n.encode()).hexdigest(), "scopes": [n]}
        for n in ("read", "write")
    ]
    path.write_text("\n".join(map(json.dumps, entries)))
    app, _ = make(keys=path)
    async with client(app) as http_client:

        async def status(key: str | None) -> int:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return (await http_client.post(PREFIX, json={}, headers=headers)).status_code

        assert [await status(k) for k in (None, "wrong", "read", "write")] == [401, 401, 403, 200]
        refused = await http_client.post(PREFIX, json={})
        assert refused.headers["www-authenticate"] == "Bearer"
        assert (await http_client.get(f"{PREFIX}/openapi.json")).status_code == 401
        assert (await http_client.get(f"{PREFIX}/healthz")).status_code == 200
        assert (await http_client.get(f"{PREFIX}/nowhere")).status_code == 401


async def test_a_failure_after_the_body_was_read_is_answered(
    room: tuple[httpx.AsyncClient, MemoryMetrics],
) -> None:
    answer = await asyncio.wait_for(room[0].post(f"{PREFIX}/broken", content=b"x" * 10), 10)
    assert answer.status_code == 500
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/octet-stream", True),
        ("Application/Octet-Stream ; q=0.5", True),
        ("application/json, application/octet-stream", True),
        ("application/json;q=0.5, application/octet-stream", True),
        ("application/json, application/octet-stream;q=0.9", False),
        ("application/octet-stream;q=0", False),
        ("application/octet-stream;q=0.000", False),
        ("application/octet-streams", False),
        ("application/*, */*", False),
        ("application/octet-stream;q=much", True),
        (", ;q=1,", False),
        ("", False),
    ],
)
def test_what_is_accepted(accept: str, wanted: bool) -> None:
    request = Request({"type": "http", "headers": [(b"accept", accept.encode())]})
    assert http.accepts(request, "application/octet-stream") is wanted
