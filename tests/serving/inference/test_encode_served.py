"""An encoder over models that are replaced: its rows always name the versions that made them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import numpy as np
import pytest

from export import Bundle, Repository
from serving.batcher import Limits
from serving.deadline import Deadline
from serving.encode import handles
from serving.encode.handles import ServedEncoder, towers
from serving.encode.pipeline import MODELS
from serving.errors import InvalidRequestError, UnavailableError
from serving.image import DecodedImage, ImagePool
from serving.models.model import Call, Model
from serving.session import Runtime
from serving.tensors import Tensors
from serving.waiting import Ticket

PICTURE = DecodedImage(np.full((20, 30, 3), 90, np.uint8), (30, 20))


class Near:
    """A model of this process behind the interface of a handle."""

    def __init__(self, model: Model) -> None:
        self.model = model

    async def infer(
        self, tensors: Tensors, version: str | None = None, deadline: Deadline | None = None
    ) -> Tensors:
        ticket = Ticket(deadline=None if deadline is None else deadline.at)
        return (await self.model.infer(tensors, Call(version=version, ticket=ticket))).outputs

    async def version(self) -> str:
        return self.model.servable.version


@pytest.fixture
async def served(
    own_bundles: tuple[Repository, Callable[[str], Bundle]],
) -> AsyncIterator[tuple[ServedEncoder, dict[str, Near], Callable[[str], Bundle]]]:
    repository, publish = own_bundles
    near = {}
    for name in MODELS:
        publish(name)
        near[name] = Near(Model(repository, name, Runtime("cpu", 1), Limits(rows=4)))
        await near[name].model.load()
    images = ImagePool(1)
    yield ServedEncoder(repository, images, near), near, publish
    images.close()
    await asyncio.gather(*(handle.model.close() for handle in near.values()))


async def test_a_replaced_tower_is_noticed_and_named(served) -> None:
    encoder, near, publish = served
    first = await encoder.encode([PICTURE], ["red shoes"])
    assert first.version == "e1-s1"
    publish("image_encoder")
    await near["image_encoder"].model.load()
    other = DecodedImage(PICTURE.pixels // 2, PICTURE.source)  # not in the cache
    second = await encoder.encode([other], ["blue"])
    assert second.version == "e2.1-s1"
    publish("text_encoder")
    publish("semantic_id")
    await near["text_encoder"].model.load()
    await near["semantic_id"].model.load()
    assert (await encoder.encode([PICTURE], ["cheap"])).version == "e2-s2"


async def test_text_alone_notices_a_new_image_tower(
    served, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, near, publish = served
    assert (await encoder.encode([None], ["red"])).version == "e1-s1"
    publish("image_encoder")
    await near["image_encoder"].model.load()
    monkeypatch.setattr(handles, "RECHECK_S", 0.0)
    assert (await encoder.encode([None], ["red"])).version == "e2.1-s1"


async def test_rows_of_one_answer_are_of_one_version_during_a_roll_out(served) -> None:
    encoder, near, publish = served
    vectors: dict[str, list[np.ndarray]] = {}
    stop = asyncio.Event()

    async def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            encoded = await encoder.encode([DecodedImage(pixels, (8, 8))] * 3, ["red"] * 3)
            assert np.array_equal(encoded.codes[0], encoded.codes[2])
            vectors.setdefault(encoded.version, []).append(encoded.vectors)

    clients = [asyncio.create_task(ask(seed)) for seed in range(4)]
    publish("image_encoder")
    while not vectors:
        await asyncio.sleep(0.01)
    await near["image_encoder"].model.load()
    while "e2.1-s1" not in vectors:
        await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*clients)
    assert set(vectors) == {"e1-s1", "e2.1-s1"}


async def test_an_unloaded_model_is_unavailable(served) -> None:
    encoder, near, _ = served
    await encoder.ready()
    await near["semantic_id"].model.unload()
    with pytest.raises(UnavailableError):
        await encoder.ready()
    with pytest.raises(UnavailableError):
        await encoder.encode([None], ["red"])


async def test_vectors_must_fit_the_tokenizer(served) -> None:
    encoder, _, _ = served
    found = await encoder.tokenize(np.ones((2, 12), np.float32))
    assert found.codes.shape == (2, 6)
    for wrong in (np.ones((2, 11)), np.ones(12), np.full((1, 12), np.nan), np.full((1, 12), 1e300)):
        with (
            pytest.raises(InvalidRequestError, match="expected"),
            np.errstate(over="ignore"),
        ):
            await encoder.tokenize(wrong.astype(np.float32))


def test_a_tokenizer_of_other_encoders_is_refused(bundles: Repository) -> None:
    opened = {name: bundles.open(name) for name in MODELS}
    revision = opened["image_encoder"].manifest.source.revision
    learned = {"encoders": {"image_encoder": revision, "text_encoder": revision}}
    bundle = opened["semantic_id"]
    good = Bundle(bundle.directory, replace(bundle.manifest, metadata=learned))
    assert towers({**opened, "semantic_id": good}).target.size == (8, 8)
    for other in ({"image_encoder": "sha256:of-another"}, {"clip": revision}):
        bad = Bundle(bundle.directory, replace(bundle.manifest, metadata={"encoders": other}))
        (name, found), *_ = other.items()
        with pytest.raises(UnavailableError, match=f"was learned on {name} {found}"):
            towers({**opened, "semantic_id": bad})
