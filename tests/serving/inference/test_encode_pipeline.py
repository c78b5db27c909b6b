"""The encoder over real sessions: fusion, missing sides, order, and rows that hold nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export import Repository
from serving.deadline import Deadline
from serving.encode.pipeline import MODELS, Encoder, Towers, fuse
from serving.encode.text import TextTokenizer
from serving.errors import InvalidContentError
from serving.image import DecodedImage, ImagePool, Target
from serving.session import open_session
from serving.tensors import Tensors

RNG = np.random.default_rng(0)


def picture() -> DecodedImage:
    return DecodedImage(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8), (30, 20))


@pytest.fixture
def encoder(bundles: Repository) -> Encoder:
    graphs = {"image_encoder": "model", "text_encoder": "model", "semantic_id": "encode"}
    sessions = {name: open_session(bundles.open(name), graph) for name, graph in graphs.items()}

    async def infer(name: str, tensors: Tensors, _deadline: Deadline | None = None) -> Tensors:
        return sessions[name].run(tensors)

    tokenizer = TextTokenizer(bundles.open("text_encoder").file("tokenizer.json"), 64)
    towers = Towers(tokenizer, Target(8, 8), 12, dict.fromkeys(MODELS, "1"))
    return Encoder(infer, towers, ImagePool(1))


async def test_rows_keep_their_order_and_sides_may_be_missing(encoder: Encoder) -> None:
    one, two = picture(), picture()
    texts = ["red shoes", None, "blue hat " * 12, "cheap"]
    encoded = await encoder.encode([one, two, None, None], texts)
    assert encoded.vectors.shape == (4, 12)
    assert encoded.vectors.dtype == np.float32
    assert encoded.codes.shape == encoded.margin.shape == (4, 6)
    assert (encoded.codes.dtype, encoded.margin.dtype) == (np.uint16, np.float32)
    assert encoded.version == "e1-s1"
    assert np.allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-6)
    image = await encoder.embed([one, two], [None, "  "])
    text = await encoder.embed([None] * 3, [texts[0], texts[2], texts[3]])
    both = image[0] + text[0]
    assert np.allclose(encoded.vectors[0], both / np.linalg.norm(both), atol=1e-6)
    assert np.allclose(encoded.vectors[1:], [image[1], text[1], text[2]], atol=1e-6)
    codes, margin = await encoder.tokenize(encoded.vectors)
    assert np.array_equal(codes, encoded.codes)
    assert np.array_equal(margin, encoded.margin)


async def test_a_film_is_the_mean_of_its_frames(encoder: Encoder) -> None:
    stills = [picture() for _ in range(3)]
    film = DecodedImage(stills[0].pixels, (30, 20), tuple(still.pixels for still in stills[1:]))
    other = picture()
    apart = await encoder.embed([*stills, other], [None] * 4)
    found = await encoder.encode([other, film], [None, None])
    both = apart[:3].sum(0)
    assert np.allclose(found.vectors[1], both / np.linalg.norm(both), atol=1e-6)
    assert np.array_equal(found.vectors[0], apart[3])
    codes, _ = await encoder.tokenize(found.vectors[1:])
    assert np.array_equal(found.codes[1:], codes)
    named = await encoder.embed([film], ["red shoes"])
    words = await encoder.embed([None], ["red shoes"])
    assert np.allclose(named, fuse(found.vectors[1:], words), atol=1e-6)


async def test_nothing_is_encoded_for_no_rows(encoder: Encoder) -> None:
    encoded = await encoder.encode([], [])
    assert encoded.vectors.shape == (0, 12)
    assert encoded.codes.shape == (0, 6)


@pytest.mark.parametrize("blank", [None, "", " \n"])
async def test_a_row_without_anything_is_named(encoder: Encoder, blank: str | None) -> None:
    with pytest.raises(InvalidContentError, match="row 1"):
        await encoder.encode([picture(), None], ["red", blank])


def test_fusion_of_opposites_keeps_the_image() -> None:
    rows = np.eye(2, 4, dtype=np.float32)
    assert np.allclose(fuse(rows, -rows), rows)
    assert np.allclose(fuse(rows, np.zeros_like(rows)), rows)
    assert np.allclose(fuse(np.zeros_like(rows), rows), rows)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20))
def test_token_rows_are_all_there_once(bundles: Repository, words: list[int]) -> None:
    tokenizer = TextTokenizer(bundles.open("text_encoder").file("tokenizer.json"), 64)
    groups = tokenizer(["red " * count for count in words])
    assert sorted(row for group in groups for row in group.rows) == list(range(len(words)))
    for group in groups:
        assert group.input_ids.shape == group.attention_mask.shape
        assert group.input_ids.shape[1] <= 64
        kept = [min(words[row], 64) for row in group.rows]
        assert group.attention_mask.sum(axis=1).tolist() == kept
        assert np.array_equal(group.input_ids, group.attention_mask)  # "red" has the id 1
