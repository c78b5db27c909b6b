"""Versions of a model: swapped under load, refused when damaged; batches isolate errors."""

import asyncio
import os

import numpy as np
import pytest

from export import Repository
from serving.batcher import Limits
from serving.errors import (
    NotFoundError,
    OverloadedError,
    RefusedInputsError,
    ServingError,
    UnavailableError,
)
from serving.models.model import BundleRefusedError, Call, Model
from serving.models.servable import COMPUTE_NICE, efficient_rows
from serving.session import Runtime
from serving.waiting import Ticket

RNG = np.random.default_rng(0)


def model_of(repository: Repository, name: str, **limits: int) -> Model:
    return Model(repository, name, Runtime("cpu", 1), Limits(**{"rows": 8, **limits}))


def pixels(rows: int) -> dict[str, np.ndarray]:
    return {"pixels": RNG.integers(0, 256, (rows, 8, 8, 3), dtype=np.uint8)}


async def test_requests_are_joined_and_each_gets_its_own_rows(bundles: Repository) -> None:
    model = model_of(bundles, "image_encoder")
    await model.load()
    asked = [pixels(rows) for rows in (1, 3, 2, 20, 5)]
    session = model.servable.runners["model"].session
    expected = [session.run(inputs)["image_features"] for inputs in asked]
    outcomes = await asyncio.gather(*(model.infer(inputs, Call()) for inputs in asked))
    for outcome, wanted in zip(outcomes, expected, strict=True):
        assert outcome.version == "1"
        assert np.allclose(outcome.outputs["image_features"], wanted, atol=1e-5)
    assert sum(stage.rows for stage in outcomes[3].stages) >= 20
    assert model.servable.statistics.rows == 31
    await model.close()


def test_the_largest_batch_near_the_best_rate_is_taken() -> None:
    measured = {1: 0.0033, 4: 0.0119, 8: 0.0255, 16: 0.0569, 32: 0.121}
    assert efficient_rows(measured) == 8
    assert efficient_rows({1: 0.01, 8: 0.011, 32: 0.012}) == 32
    assert efficient_rows({1: 0.01}) == 1


async def test_values_that_fail_fail_only_their_own_request(bundles: Repository) -> None:
    model = model_of(bundles, "text_encoder")
    await model.load()

    def ask(value: int) -> dict[str, np.ndarray]:
        ids = np.full((1, 4), value, np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    jobs = [model.infer(ask(value), Call()) for value in (1, 77, 2, -77, 3)]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    failed = [isinstance(result, RefusedInputsError) for result in results]
    assert failed == [False, True, False, True, False]
    assert model.servable.statistics.stages["fail"].count == 2
    await model.close()


async def test_a_version_takes_over_without_a_failed_request(own_bundles) -> None:
    repository, publish = own_bundles
    publish("image_encoder")
    model = model_of(repository, "image_encoder")
    assert await model.load() == "1"
    stop = asyncio.Event()

    async def ask() -> list[str]:
        versions = [(await model.infer(pixels(2), Call())).version]
        while not stop.is_set():
            versions.append((await model.infer(pixels(2), Call())).version)
        return versions

    clients = [asyncio.create_task(ask()) for _ in range(8)]
    for version in ("2", "3"):
        publish("image_encoder")
        assert await model.load() == version
        assert await model.load() == version
    await asyncio.sleep(0)
    stop.set()
    # The old version finishes what it began while the new one serves: each client, who asks one
    # after the other, goes forward only.
    for versions in await asyncio.gather(*clients):
        assert versions == sorted(versions)
    assert await model.load("1") == "1"
    assert (await model.infer(pixels(1), Call(version="1"))).version == "1"
    with pytest.raises(NotFoundError, match="version 3 of model 'image_encoder' is not served"):
        await model.infer(pixels(1), Call(version="3"))
    await model.close()


async def test_what_cannot_be_opened_changes_nothing(own_bundles) -> None:
    repository, publish = own_bundles
    publish("image_encoder")
    model = model_of(repository, "image_encoder")
    await model.load()
    damaged = publish("image_encoder").path()
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    with pytest.raises(BundleRefusedError, match="SHA-256"):
        await model.load()
    with pytest.raises(NotFoundError, match="no version 9"):
        await model.load("9")
    assert (await model.infer(pixels(1), Call())).version == "1"
    await model.close()


async def test_an_unloaded_model_is_unavailable_until_it_is_loaded(bundles: Repository) -> None:
    model = model_of(bundles, "image_encoder")
    with pytest.raises(UnavailableError, match="not loaded"):
        await model.infer(pixels(1), Call())
    await model.load()
    await model.infer(pixels(1), Call())
    await model.unload()
    assert not model.loaded
    with pytest.raises(UnavailableError):
        await model.infer(pixels(1), Call())
    await model.load()
    await model.infer(pixels(1), Call())
    await model.close()


async def test_a_full_queue_sheds_and_then_recovers(bundles: Repository) -> None:
    model = model_of(bundles, "image_encoder", waiting=8)
    await model.load()
    jobs = [model.infer(pixels(4), Call(ticket=Ticket(client="one"))) for _ in range(12)]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    shed = [result for result in results if isinstance(result, ServingError)]
    assert shed
    assert all(isinstance(result, OverloadedError) for result in shed)
    assert len(shed) < 12
    await model.infer(pixels(4), Call())
    await model.close()


async def test_what_computes_gives_way_to_what_answers(bundles: Repository) -> None:
    model = model_of(bundles, "image_encoder")
    await model.load()
    runner = model.servable.runners["model"]
    loop = asyncio.get_running_loop()
    nice = await loop.run_in_executor(runner._thread, os.getpriority, os.PRIO_PROCESS, 0)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert nice == min(own + COMPUTE_NICE, 19)
    await model.close()
