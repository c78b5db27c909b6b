"""Refusals at the door: only for the deadline, only when something waits, and nothing is lost."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import orjson
import pytest

from export import Repository
from serving.batcher import Limits
from serving.models import door
from serving.models.door import READ, Door
from serving.models.model import Call, Model
from serving.replica import Replica
from serving.session import Runtime
from tests.serving.inference.gates import until

PREFIX = "/v2/models/image_encoder"
PIXELS = np.zeros((1, 8, 8, 3), np.uint8)
HOUR_S = 3600.0


class Crowd:
    """A model whose batches take an hour, as it believes, and do not end before they are let."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.passed: list[tuple[dict[str, Any], bytes]] = []  # scopes and bodies behind the door
        self.replica = Replica.local("image_encoder", PREFIX)
        self.door = Door(self._app, self.replica, model)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.passed.append((scope, body))

    async def ask(self, *parts: bytes, path: str = "/infer", **headers: str) -> list[Any]:
        """What is answered to a POST whose body comes in parts; nothing where it was passed on."""
        waiting = [{"type": "http.request", "body": p, "more_body": True} for p in parts]
        waiting[-1]["more_body"] = False
        lengths = {"content-length": str(len(b"".join(parts)))}
        named = {k.replace("_", "-"): v for k, v in (lengths | headers).items()}
        pairs = [(k.encode(), v.encode()) for k, v in named.items() if v]
        scope = {"type": "http", "method": "POST", "path": PREFIX + path, "headers": pairs}
        sent: list[Any] = []

        async def receive() -> Any:
            return waiting.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await self.door(scope, receive, send)
        return sent


def body(timeout_s: float = 0.0) -> bytes:
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 8, 8, 3]}
    asked = {"inputs": [tensor | {"data": PIXELS.ravel().tolist()}]}
    return orjson.dumps(asked | {"parameters": {"timeout": int(timeout_s * 1e6)}})


@pytest.fixture
async def crowd(bundles: Repository, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Crowd]:
    monkeypatch.setattr("serving.models.servable.warm_up", lambda _, sizes: {1: HOUR_S})
    model = Model(bundles, "image_encoder", Runtime("cpu", 1), Limits(rows=1))
    await model.load()
    let = threading.Event()
    session = model.servable.runners["model"].session
    run = session.run
    monkeypatch.setattr(session, "run", lambda inputs: (let.wait(30), run(inputs))[1])
    asked = [asyncio.create_task(model.infer({"pixels": PIXELS}, Call())) for _ in range(4)]
    await until(lambda: model.crowded)
    yield Crowd(model)
    let.set()
    await asyncio.gather(*asked)
    assert not model.crowded
    await model.close()


async def test_who_cannot_be_in_time_is_refused_and_counted(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "REPORT_S", 0.0)
    whole = body(timeout_s=60)
    start, answer = await crowd.ask(whole[:50], whole[50:], x_request_id="mine")
    headers = dict(start["headers"])
    assert (start["status"], headers[b"retry-after"]) == (429, b"60")
    assert headers[b"x-request-id"] == b"mine"
    assert "60000 ms are left" in orjson.loads(answer["body"])["error"]
    assert not crowd.passed
    assert crowd.model.servable.statistics.stages["fail"].count == 1
    counted = {"route": f"{PREFIX}/infer", "method": "POST", "status": "429"}
    await until(lambda: crowd.replica.metrics.total("tessera_requests", **counted) == 1)
    assert crowd.replica.metrics.total("tessera_errors", problem="overloaded") == 1


async def test_who_can_be_in_time_goes_on_with_what_was_read(crowd: Crowd) -> None:
    for whole in (body(), body(timeout_s=100 * HOUR_S)):
        assert await crowd.ask(whole[:9], whole[9:]) == []
        scope, passed = crowd.passed.pop()
        assert passed == whole
        np.testing.assert_array_equal(scope[READ].request.inputs["pixels"], PIXELS)


@pytest.mark.parametrize(
    ("whole", "headers"),
    [
        (b"not JSON", {}),
        (body(60).replace(b"pixels", b"pixelz"), {}),
        (body(60), {"content_length": ""}),
        (body(60), {"content_length": str(door.READ_BYTES + 1)}),
        (body(60), {"path": "/versions/1/infer"}),
        (body(60), {"path": "/config"}),
    ],
)
async def test_the_rest_is_the_applications_to_answer(
    crowd: Crowd, whole: bytes, headers: dict[str, str]
) -> None:
    assert await crowd.ask(whole, **headers) == []
    scope, passed = crowd.passed.pop()
    assert passed == whole
    assert READ not in scope


async def test_while_nothing_waits_nobody_is_asked_at_the_door(bundles: Repository) -> None:
    model = Model(bundles, "image_encoder", Runtime("cpu", 1), Limits(rows=1))
    empty = Crowd(model)
    assert await empty.ask(body(timeout_s=1e-6)) == []
    await model.load()
    assert await empty.ask(body(timeout_s=1e-6)) == []
    assert [READ in scope for scope, _ in empty.passed] == [False, False]
    await model.close()
