"""What callers of a model hear when calls or streams go wrong on the way; no Ray is started."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError
from tritonclient.grpc import service_pb2 as pb

from serving import rpc
from serving.errors import OverloadedError
from serving.metrics import MemoryMetrics
from serving.models.handles import ModelHandle
from serving.models.service import STREAM_WINDOW, ModelService
from serving.replica import Replica


def handle_that_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> ModelHandle:
    async def remote(*_args: Any, **_named: Any) -> None:
        raise error

    found = SimpleNamespace(infer=SimpleNamespace(remote=remote))
    monkeypatch.setattr(serve, "get_deployment_handle", lambda *_a, **_k: found)
    return ModelHandle("text_encoder")


async def refusal(handle: ModelHandle) -> OverloadedError:
    with pytest.raises(OverloadedError) as caught:
        await handle.infer({"x": np.zeros((1, 1), np.float32)})
    return caught.value


async def test_a_refusal_keeps_its_wait_on_the_way_through_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = OverloadedError("the queue is full", retry_after_s=17.0)
    through_ray = RayTaskError("infer", "traceback", said).as_instanceof_cause()
    error = await refusal(handle_that_raises(through_ray, monkeypatch))
    assert (error.detail, error.retry_after) == ("the queue is full", "17")


async def test_a_full_router_is_an_overload_and_not_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = BackPressureError(num_queued_requests=256, max_queued_requests=256)
    error = await refusal(handle_that_raises(full, monkeypatch))
    assert (error.status, error.retry_after) == (429, "1")


class Echo(ModelService):
    """A service whose answers are its requests."""

    async def _run(self, *_args: Any, **_named: Any) -> Any:
        return "client"

    async def _streamed(self, request: Any, client: str) -> Any:
        return request, client


async def test_a_stream_that_breaks_off_ends_its_answers() -> None:
    async def requests() -> AsyncIterator[int]:
        for number in range(STREAM_WINDOW + 8):
            yield number
        raise ConnectionResetError("the client has left")

    answers = Echo().ModelStreamInfer(requests(), None)
    found = [(await anext(answers))[0] for _ in range(STREAM_WINDOW + 8)]
    assert found == list(range(STREAM_WINDOW + 8))
    with pytest.raises(ConnectionResetError):
        await anext(answers)


async def test_a_call_says_which_application_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Any] = {}

    async def remote(tensors: Any, **named: Any) -> Any:
        said.update(named)
        return tensors

    found = SimpleNamespace(infer=SimpleNamespace(remote=remote))
    monkeypatch.setattr(serve, "get_deployment_handle", lambda *_a, **_k: found)
    await ModelHandle("text_encoder", "ingest").infer({"x": np.zeros((1, 1), np.float32)})
    assert said["client"] == "application:ingest"


class Refusing(ModelService):
    """A service that refuses whatever a stream asks."""

    def __init__(self) -> None:
        self._replica = Replica.local("refusing", "/v2/models/refusing")
        self._calls = rpc.Calls(self._replica)

    async def _infer(self, request: Any, client: str) -> Any:
        raise OverloadedError("the queue is full")

    async def ask(self) -> Any:
        """One request of a stream."""
        return await self._streamed(pb.ModelInferRequest(id="7"), "")


async def test_refusals_inside_a_stream_are_counted() -> None:
    service = Refusing()
    answer = await service.ask()
    assert (answer.error_message, answer.infer_response.id) == ("the queue is full", "7")
    metrics = service._replica.metrics
    assert isinstance(metrics, MemoryMetrics)
    assert metrics.total("tessera_requests", status="RESOURCE_EXHAUSTED") == 1
    assert metrics.total("tessera_errors", problem="overloaded") == 1
