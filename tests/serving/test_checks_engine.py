"""The bridge between asyncio and an engine's thread: nothing leaks, nothing wrong gets through."""

import asyncio
import threading
import time

import numpy as np
import pytest

from serving.errors import InvalidRequestError, OverloadedError, UnavailableError
from serving.llm.admission import Admission
from serving.llm.asks import Ask, Read, Shape
from serving.llm.engine import Engine, Limits
from serving.llm.vllm_engine import Job, Output

SHAPE = Shape(context=32, hidden=4, vocabulary=100)
LABELS = (7, 8)


class SlowSteps:
    """An engine that answers one request a step; `hold` keeps it from stepping."""

    blocks = 64

    def __init__(self) -> None:
        self.shape = SHAPE
        self.jobs: dict[str, Job] = {}
        self.given: dict[str, int] = {}
        self.added = 0
        self.aborted: list[str] = []
        self.hold = threading.Event()
        self.hold.set()
        self.broken = False
        self.thread: int | None = None

    @property
    def busy(self) -> bool:
        return bool(self.jobs)

    def add(self, job: Job) -> None:
        self.added += 1
        if job.ask.ids[0] == 99:
            raise ValueError("not this one")
        self.jobs[job.name] = job
        self.thread = threading.get_ident()

    def abort(self, name: str) -> None:
        self.aborted.append(name)
        self.jobs.pop(name, None)

    def step(self) -> list[Output]:
        if not self.hold.wait(0.01):
            return []
        if self.broken:
            raise RuntimeError("the engine core died")
        if not self.jobs:
            return []
        name, job = next(iter(self.jobs.items()))
        ask, given = job.ask, self.given.get(name, 0)
        more = job.streamed and given < job.max_tokens - 1
        if more:
            self.given[name] = given + 1
        else:
            del self.jobs[name]
        ids = ask.ids[given : given + 1] if job.streamed else ask.ids[: job.max_tokens]
        first = float(ask.ids[0])
        return [Output(name, ids, {7: -first, 8: -2 * first}, 3, more)]

    def inside(self) -> dict[str, int]:
        return {"known": len(self.jobs)}


async def until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


@pytest.fixture
async def steps() -> SlowSteps:
    return SlowSteps()


@pytest.fixture
async def engine(steps: SlowSteps) -> "asyncio.AsyncGenerator[Engine, None]":  # type: ignore[name-defined]
    made = Engine(lambda: steps, Limits(8, 64))
    await made.start()
    yield made
    await made.close()


async def test_answers_go_to_who_asked(engine: Engine, steps: SlowSteps) -> None:
    found = await engine.read([Ask((n, 1)) for n in (5, 3, 9)], LABELS)
    assert found == [Read((-5.0, -10.0), 3), Read((-3.0, -6.0), 3), Read((-9.0, -18.0), 3)]
    assert await engine.generate(Ask((4, 2, 1)), 2) == (4, 2)
    assert steps.thread not in (None, threading.get_ident())
    assert engine.in_flight == 0


async def test_a_caller_that_goes_away_leaves_nothing(engine: Engine, steps: SlowSteps) -> None:
    steps.hold.clear()
    tasks = [asyncio.create_task(engine.read([Ask((n,))], LABELS)) for n in range(1, 7)]
    await until(lambda: len(steps.jobs) == 6)
    for task in tasks[:5]:
        task.cancel()
    await asyncio.gather(*tasks[:5], return_exceptions=True)
    await until(lambda: len(steps.jobs) == 1)
    assert len(steps.aborted) == 5
    steps.hold.set()
    assert (await tasks[5])[0] == Read((-6.0, -12.0), 3)
    assert (engine.in_flight, steps.jobs) == (0, {})


def soft(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    "ask",
    [
        Ask(()),
        Ask((1,) * 32),
        Ask((100,)),
        Ask((-1,)),
        Ask((1, 2), soft(1, 5), 0),
        Ask((1, 2), soft(1, 4, dtype=np.float64), 0),  # type: ignore[arg-type]
        Ask((1, 2), soft(4), 0),
        Ask((1, 2), soft(2, 4), 1),
        Ask((1, 2), soft(1, 4), -1),
        Ask((1, 2), soft(0, 4), 0),
        Ask((1, 2), soft(1, 4), None),
        Ask((1, 2), None, 0),
        Ask((1, 2), np.full((1, 4), np.nan, np.float32), 0),
    ],
)
async def test_a_wrong_shape_never_reaches_the_engine(
    engine: Engine, steps: SlowSteps, ask: Ask
) -> None:
    found = await engine.read([ask, Ask((3,))], LABELS)
    assert isinstance(found[0], InvalidRequestError)
    assert found[1] == Read((-3.0, -6.0), 3)
    assert steps.added == 1


async def test_what_the_engine_refuses_is_that_asks_answer_only(
    engine: Engine, steps: SlowSteps
) -> None:
    found = await engine.read([Ask((99,)), Ask((3,))], LABELS)
    assert isinstance(found[0], InvalidRequestError)
    assert isinstance(found[1], Read)
    assert engine.in_flight == 0


async def test_too_many_at_once_are_refused(engine: Engine, steps: SlowSteps) -> None:
    steps.hold.clear()
    waiting = asyncio.create_task(engine.read([Ask((n,)) for n in range(1, 12)], LABELS))
    await until(lambda: len(steps.jobs) == 8)
    steps.hold.set()
    found = await waiting
    assert [isinstance(one, OverloadedError) for one in found] == [False] * 8 + [True] * 3


async def test_only_tokens_that_are_not_cached_are_counted(
    engine: Engine, steps: SlowSteps
) -> None:
    """Limits: 8 asks, 64 tokens; blocks of 4 in a shape of their own."""
    steps.shape = Shape(context=128, hidden=4, vocabulary=100, block_size=4)
    fresh = Engine(lambda: steps, Limits(8, 64))
    await fresh.start()
    steps.hold.clear()
    shared = tuple(range(1, 49))
    first = asyncio.create_task(fresh.read([Ask((*shared, 60))], LABELS))
    await until(lambda: fresh.uncached_tokens == 49)
    assert isinstance((await fresh.read([Ask((70,) * 20)], LABELS))[0], OverloadedError)
    others = [asyncio.create_task(fresh.read([Ask((*shared, n))], LABELS)) for n in range(61, 67)]
    await until(lambda: len(steps.jobs) == 7)  # by whole prompts: 343 tokens
    assert fresh.uncached_tokens == 55
    steps.hold.set()
    found = [await task for task in (first, *others)]
    assert all(isinstance(one, Read) for (one,) in found)
    assert (fresh.uncached_tokens, fresh.in_flight) == (0, 0)
    await fresh.close()


def test_images_are_part_of_what_is_cached() -> None:
    admission = Admission(8, 1_000, block_size=4, blocks=8)
    ids = tuple(range(1, 17))
    for name, value, at, need in (
        ("a", 1.0, 8, 16),
        ("b", 1.0, 8, 1),
        ("c", 2.0, 8, 8),  # another image behind the same eight tokens
        ("d", 2.0, 0, 16),
    ):
        before = admission.uncached
        admission.admit(name, Ask(ids, np.full((2, 4), value, np.float32), at))
        assert admission.uncached - before == need, name
    for name in "abcd":
        admission.release(name)
    assert (admission.uncached, len(admission)) == (0, 0)


async def test_a_text_comes_as_it_is_made_and_ends_with_its_reader(
    engine: Engine, steps: SlowSteps
) -> None:
    pieces = [piece async for piece in engine.stream(Ask((5, 6, 7, 8)), 3)]
    assert pieces == [(5,), (6,), (7,)]
    assert engine.in_flight == 0
    stream = engine.stream(Ask((5, 6, 7, 8)), 20)
    assert await anext(stream) == (5,)
    await stream.aclose()
    await until(lambda: not steps.jobs)
    assert (engine.in_flight, engine.uncached_tokens) == (0, 0)


async def test_a_dead_engine_says_so_to_all(engine: Engine, steps: SlowSteps) -> None:
    engine.health()
    steps.broken = True
    found = await engine.read([Ask((1,)), Ask((2,))], LABELS)
    assert all(isinstance(one, UnavailableError) for one in found)
    with pytest.raises(UnavailableError):
        engine.health()
    with pytest.raises(UnavailableError):
        await engine.read([Ask((1,))], LABELS)


async def test_an_engine_that_does_not_open_says_why() -> None:
    def broken() -> SlowSteps:
        raise OSError("no such weights")

    engine = Engine(broken, Limits(1))
    with pytest.raises(OSError, match="no such weights"):
        await engine.start()
    with pytest.raises(UnavailableError):
        engine.health()
