from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from export.reference.errors import ReferenceModelError
from export.reference.semantic_id import LEVELS, SemanticId
from export.reference.semantic_id_training import Plan, kmeans, learn, nearest, split
from export.reference.weights import SHIPPED, read_card

PLAN = Plan(seed=3, sweeps=1, held_out=0.05)


def vectors(count: int, seed: int) -> NDArray[np.float32]:
    """Unit rows around 300 topics: something that a codebook can find."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(0).normal(size=(300, 384))
    rows = topics[rng.integers(300, size=count)] + rng.normal(size=(count, 384)) * 0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def learned() -> tuple[SemanticId, dict[str, object]]:
    return learn(vectors(18_000, seed=1), None, None, PLAN, lambda _: None)


@pytest.fixture(scope="module")
def shipped() -> SemanticId:
    return SemanticId.from_weights()


def test_codes_are_in_range_and_their_margins_positive(shipped: SemanticId) -> None:
    codes, margin = shipped.encode(torch.from_numpy(vectors(200, seed=2)))
    assert codes.shape == margin.shape == (200, 6)
    assert codes.dtype == torch.int32
    assert bool((margin >= 0).all())
    assert bool((codes >= 0).all())
    assert bool((codes < torch.tensor([size for _, size in LEVELS])).all())


def test_each_code_is_the_nearest_entry_of_its_level(shipped: SemanticId) -> None:
    rows = torch.from_numpy(vectors(50, seed=3))
    codes, margin = shipped.encode(rows)
    for level in range(0, 6, 2):
        h = shipped.latent(rows)
        for index in (level, level + 1):
            distance = torch.cdist(h.double(), shipped.entries(index).double())
            assert torch.equal(distance.argmin(1).int(), codes[:, index])
            two = distance.square().topk(2, largest=False).values
            expected = ((two[:, 1] - two[:, 0]) / 2).float()
            torch.testing.assert_close(margin[:, index], expected, atol=1e-5, rtol=1e-3)
            h = h - shipped.entries(index)[codes[:, index].long()]


def test_decoding_gives_back_most_of_the_feature(
    learned: tuple[SemanticId, dict[str, object]],
) -> None:
    model, report = learned
    rows = torch.from_numpy(vectors(300, seed=4))
    back = model.decode(model.encode(rows)[0])
    torch.testing.assert_close(back.norm(dim=1), torch.ones(300))
    others = rows.roll(1, 0)
    assert float(F.cosine_similarity(back, rows).mean()) > 0.6
    assert float(F.cosine_similarity(back, rows).mean()) > float(
        F.cosine_similarity(back, others).mean()
    )
    held, train = report["relative_mse_held_out"], report["relative_mse_train"]
    assert isinstance(held, float)
    assert isinstance(train, float)
    assert train <= held < 1


def test_a_codebook_depends_on_rows_and_seed_alone() -> None:
    rows = torch.from_numpy(vectors(3_000, seed=1))
    first, again, other = (
        kmeans(rows, 256, None, 4, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_starting_from_a_previous_tokenizer_keeps_its_codes(
    learned: tuple[SemanticId, dict[str, object]],
) -> None:
    more = np.concatenate([vectors(18_000, seed=1), vectors(1_800, seed=9)])
    previous = SemanticId()
    previous.load_state_dict(learned[0].state_dict())
    warm, _ = learn(more, None, previous, PLAN, lambda _: None)
    cold, _ = learn(more, None, None, Plan(seed=8, sweeps=1), lambda _: None)
    rows = torch.from_numpy(vectors(500, seed=5))
    first = learned[0].encode(rows)[0][:, 0]
    kept = float((warm.encode(rows)[0][:, 0] == first).float().mean())
    assert kept > 0.9
    assert kept > float((cold.encode(rows)[0][:, 0] == first).float().mean())


def test_the_same_product_stays_on_one_side() -> None:
    pairs = np.array([[0, 900, 1], [900, 500, 1], [3, 4, 0]])
    held = split(1000, pairs, Plan(held_out=0.5))
    assert held[0] == held[900] == held[500]
    assert 0.4 < held.mean() < 0.6


def test_no_entry_stays_empty() -> None:
    rows = torch.cat([torch.zeros(500, 4), torch.randn(12, 4) + 9])
    table = kmeans(rows, 8, None, 6, torch.Generator().manual_seed(0))
    assert len(nearest(rows, table).unique()) >= 7


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ReferenceModelError, match="expected at least 16384 rows"):
        learn(vectors(100, seed=1), None, None, PLAN, lambda _: None)


def test_the_committed_codebooks_name_their_encoders() -> None:
    file, card = SHIPPED / "semantic_id.safetensors", read_card("semantic_id")
    assert file.stat().st_size <= 6_000_000
    encoders = card["encoders"]
    assert isinstance(encoders, dict)
    from export import shipped as bundles

    assert encoders == {
        name: bundles.source(name).revision for name in ("image_encoder", "text_encoder")
    }
    report = card["report"]
    assert isinstance(report, dict)
    assert report["relative_mse_held_out"] < 0.5


def test_wrong_codebooks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceModelError, match="found no such file"):
        SemanticId.from_weights(tmp_path / "absent.safetensors")
