"""Plain routes answer, refuse and count as any other: only FastAPI's own layers are left out."""

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response

from serving import http
from serving.metrics import MemoryMetrics
from serving.replica import Replica
from serving.schema import BlockRequest

PREFIX = "/v1/room"
KEYS = {"write": ["write"], "read": ["read"]}


def make(plain: bool, keys: Path) -> tuple[FastAPI, MemoryMetrics]:
    replica = Replica.local("room", PREFIX, keys)
    app = http.create_app(replica, body_limit_bytes=1000)
    routes: Any = APIRouter(route_class=http.PlainRoute) if plain else app

    @routes.post(
        "/echo",
        dependencies=[http.requires("write")],
        openapi_extra=http.document_body(BlockRequest, said={"reason": "x"}),
    )
    async def echo(request: Request) -> Response:
        """Says it again."""
        body = await http.json_body(request, BlockRequest)
        if body.reason == "broken":
            raise ZeroDivisionError("a secret of the code")
        return Response(body.reason)

    if plain:
        http.add_plain(app, routes)
    assert isinstance(replica.metrics, MemoryMetrics)
    return app, replica.metrics


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    lines = [
        {"name": name, "key_sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": scopes}
        for name, scopes in KEYS.items()
    ]
    (tmp_path / "keys").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "keys"


@pytest.mark.parametrize(
    ("method", "key", "body", "status"),
    [
        ("POST", "write", {"json": {"reason": "x"}}, 200),
        ("POST", "write", {"json": {"colour": 1}}, 400),
        ("POST", "write", {"content": b"{}"}, 415),
        ("POST", "write", {"json": {"reason": "x" * 1000}}, 413),
        ("POST", "write", {"json": {"reason": "broken"}}, 500),
        ("POST", "read", {"json": {"reason": "x"}}, 403),
        ("POST", "other", {"json": {"reason": "x"}}, 401),
        ("GET", "write", {}, 405),
    ],
)
async def test_they_answer_as_any_other(
    keys: Path, method: str, key: str, body: dict[str, Any], status: int
) -> None:
    answers, counted = [], []
    for plain in (False, True):
        app, metrics = make(plain, keys)
        transport = httpx.ASGITransport(app, root_path=PREFIX)
        headers = {"authorization": f"Bearer {key}", "x-request-id": "7"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.request(method, f"{PREFIX}/echo", headers=headers, **body)
        answers.append((answer.status_code, answer.text, sorted(answer.headers.items())))
        counted.append({name: metric.values.keys() for name, metric in metrics._metrics.items()})
    assert answers[0][0] == status
    assert answers[0] == answers[1]
    assert counted[0] == counted[1]


def test_they_are_described_as_any_other(keys: Path) -> None:
    described = [make(plain, keys)[0].openapi() for plain in (False, True)]
    assert described[0] == described[1]
