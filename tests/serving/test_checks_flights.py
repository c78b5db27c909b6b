"""Shared work outlives whoever asked for it; whoever still waits hears when it was cancelled."""

import asyncio
import contextvars

import numpy as np
import pytest

from serving.checks.flights import Flights
from serving.encode.cache import CachedInfer
from serving.errors import OverloadedError, UnavailableError
from serving.tensors import Tensors

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


async def test_a_flight_belongs_to_no_request() -> None:
    async def work() -> str:
        return REQUEST.get()

    REQUEST.set("the first caller's")
    assert await Flights[str]().join("key", work) == "none"


async def test_work_that_is_cancelled_is_unavailable_and_can_be_asked_anew() -> None:
    flights: Flights[int] = Flights()

    async def cancelled() -> int:
        raise asyncio.CancelledError

    async def one() -> int:
        return 1

    with pytest.raises(UnavailableError):
        await flights.join("key", cancelled)
    assert await flights.join("key", one) == 1


async def test_a_cancelled_model_call_leaves_no_content_stuck() -> None:
    calls = 0

    async def infer(_name: str, tensors: Tensors, _deadline: object = None) -> Tensors:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise asyncio.CancelledError
        return {"out": tensors["in"]}

    cached = CachedInfer(infer, ("model",))
    tensors = {"in": np.ones((1, 2), np.float32)}
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(cached("model", tensors), 10)
    assert (await asyncio.wait_for(cached("model", tensors), 10))["out"].tolist() == [[1, 1]]


async def test_flights_are_bounded() -> None:
    flights, gate = Flights[int](most=2), asyncio.Event()

    async def held() -> int:
        await gate.wait()
        return 1

    first, second = flights.join("a", held), flights.join("b", held)
    assert flights.join("a", held) is first  # to join one costs nothing
    with pytest.raises(OverloadedError):
        flights.join("c", held)
    gate.set()
    assert await first + await second == 2
    assert await flights.join("c", held) == 1
