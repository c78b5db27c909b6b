"""The cache gives what the model gives, and asks it once for each content."""

import asyncio

import numpy as np
import pytest

from export import Repository
from serving.deadline import Deadline
from serving.encode.cache import CachedInfer
from serving.errors import DeadlineExceededError, UnavailableError
from serving.session import open_session
from serving.tensors import Tensors

RNG = np.random.default_rng(0)


class Counting:
    """A real session behind `infer`, which counts rows and can be held back or made to fail."""

    def __init__(self, repository: Repository) -> None:
        self._session = open_session(repository.open("image_encoder"), "model")
        self.rows = 0
        self.deadlines: list[Deadline | None] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(
        self, name: str, tensors: Tensors, deadline: Deadline | None = None
    ) -> Tensors:
        self.deadlines.append(deadline)
        await self.gate.wait()
        if deadline is not None:
            deadline.check("the model was free")
        self.rows += len(next(iter(tensors.values())))
        if self.error is not None:
            raise self.error
        return self._session.run(tensors)


@pytest.fixture
async def model(bundles: Repository) -> Counting:
    return Counting(bundles)


def pixels(rows: int) -> Tensors:
    return {"pixels": RNG.integers(0, 256, (rows, 8, 8, 3), dtype=np.uint8)}


async def test_known_rows_are_not_asked_for_again(model: Counting) -> None:
    cached = CachedInfer(model, ["image_encoder"])
    first, more = pixels(3), pixels(2)
    expected = (await model("image_encoder", first))["image_features"]
    model.rows = 0
    out = await cached("image_encoder", first)
    assert np.allclose(out["image_features"], expected, atol=1e-6)
    assert model.rows == 3
    mixed = {"pixels": np.concatenate([first["pixels"][2:], more["pixels"], more["pixels"]])}
    again = await cached("image_encoder", mixed)
    assert model.rows == 5
    assert np.array_equal(again["image_features"][0], out["image_features"][2])
    assert np.array_equal(again["image_features"][1:3], again["image_features"][3:])


async def test_the_same_content_at_once_is_computed_once(model: Counting) -> None:
    cached = CachedInfer(model, ["image_encoder"])
    model.gate.clear()
    asked = pixels(2)
    tasks = [asyncio.create_task(cached("image_encoder", asked)) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # whoever came first may leave; the others are served all the same
    await asyncio.sleep(0)
    model.gate.set()
    results = await asyncio.gather(*tasks[1:])
    assert model.rows == 2
    assert all(np.array_equal(r["image_features"], results[0]["image_features"]) for r in results)


async def test_an_error_is_told_to_all_and_not_kept(model: Counting) -> None:
    cached = CachedInfer(model, ["image_encoder"])
    asked = pixels(1)
    model.error = UnavailableError("not now")
    jobs = [cached("image_encoder", asked) for _ in range(3)]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert all(isinstance(result, UnavailableError) for result in results)
    model.error = None
    assert (await cached("image_encoder", asked))["image_features"].shape == (1, 12)


async def test_the_cache_is_bounded_and_keeps_what_is_used(model: Counting) -> None:
    cached = CachedInfer(model, ["image_encoder"], capacity_bytes=3 * 448)
    asked = [pixels(1) for _ in range(4)]
    for one in asked[:3]:
        await cached("image_encoder", one)
    await cached("image_encoder", asked[0])
    assert model.rows == 3
    await cached("image_encoder", asked[3])
    assert cached.bytes <= 3 * 448
    await cached("image_encoder", asked[0])
    assert model.rows == 4
    await cached("image_encoder", asked[1])
    assert model.rows == 5


async def test_other_models_pass_through(model: Counting) -> None:
    cached = CachedInfer(model, ["text_encoder"])
    asked = pixels(1)
    await cached("image_encoder", asked)
    await cached("image_encoder", asked)
    assert model.rows == 2
    assert cached.bytes == 0


async def test_another_ones_deadline_ends_only_his_own_wait(model: Counting) -> None:
    cached = CachedInfer(model, ["image_encoder"])
    model.gate.clear()
    asked = pixels(1)
    hasty = asyncio.create_task(cached("image_encoder", asked, Deadline.after(0.01)))
    async with asyncio.timeout(10):
        while not model.deadlines:
            await asyncio.sleep(0)
        patient = asyncio.create_task(cached("image_encoder", asked, Deadline.after(60)))
        while not model.deadlines[0].expired:
            await asyncio.sleep(0.001)
        model.gate.set()
        with pytest.raises(DeadlineExceededError):
            await hasty
        assert (await patient)["image_features"].shape == (1, 12)
    assert len(model.deadlines) == 2


async def test_nobody_waits_beyond_his_deadline_for_what_another_began(model: Counting) -> None:
    cached = CachedInfer(model, ("image_encoder",))
    content = pixels(2)
    model.gate.clear()
    patient = asyncio.create_task(cached("image_encoder", content))
    while not model.deadlines:
        await asyncio.sleep(0)
    with pytest.raises(DeadlineExceededError):
        await cached("image_encoder", content, Deadline.after(0.01))
    model.gate.set()
    assert len((await patient)["image_features"]) == 2
    assert model.rows == 2
