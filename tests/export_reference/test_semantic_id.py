from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from export.reference.errors import ReferenceModelError
from export.reference.weights import SHIPPED, read_card, save_weights
from export.semantic_id import measures, split
from export.semantic_id.codebooks import balance, kmeans, nearest, perplexity
from export.semantic_id.learning import Plan, learn
from export.semantic_id.measures import in_batches
from export.semantic_id.metric import learn_metric
from export.semantic_id.model import CARRY, NAMES, SIZES, SemanticId
from export.semantic_id.plots import draw
from export.semantic_id.tuning import Tuning

SMALL = (16, 16, 32, 32, 64, 64)
PLAN = Plan(seed=3, sizes=SMALL, latent=24, held_out=0.1, tuning=Tuning(rounds=2, steps=2))


def vectors(count: int, seed: int, dimension: int = 48) -> NDArray[np.float32]:
    """Unit rows around 60 topics: something that a codebook can find."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(0).normal(size=(60, dimension))
    rows = topics[rng.integers(60, size=count)] + rng.normal(size=(count, dimension)) * 0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Steps this small only wait for each other on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def learned() -> tuple[SemanticId, dict[str, object]]:
    return learn(vectors(3000, seed=1), None, None, PLAN, lambda _: None)


@pytest.fixture(scope="module")
def shipped() -> SemanticId:
    return SemanticId.from_weights()


def test_codes_are_in_range_and_their_margins_positive(shipped: SemanticId) -> None:
    codes, margin = shipped.encode(torch.from_numpy(vectors(200, seed=2, dimension=384)))
    assert codes.shape == margin.shape == (200, 6)
    assert codes.dtype == torch.int32
    assert bool((margin >= 0).all())
    assert bool((codes >= 0).all())
    assert bool((codes < torch.tensor(SIZES)).all())


def test_each_code_is_the_most_activated_entry_of_its_level(
    learned: tuple[SemanticId, dict[str, object]],
) -> None:
    model, rows = learned[0], torch.from_numpy(vectors(50, seed=3))
    codes, margin = model.encode(rows)
    h = model.latent(rows).double()
    carried = torch.zeros_like(h)
    for level in range(6):
        if level % 2 == 0:
            residual = h - CARRY * carried
        keys = model.keys(level).double()
        activation = residual @ keys.T - keys.square().sum(1) / 2 + model.bias(level).double()
        best = activation.topk(2).values
        clear = best[:, 0] - best[:, 1] > 1e-5
        assert torch.equal(activation.argmax(1).int()[clear], codes[clear, level])
        torch.testing.assert_close(
            margin[:, level], (best[:, 0] - best[:, 1]).float(), atol=2e-6, rtol=0
        )
        residual = residual - keys[codes[:, level].long()]
        carried = carried + keys[codes[:, level].long()]


def test_decoding_gives_back_most_of_the_feature(
    learned: tuple[SemanticId, dict[str, object]],
) -> None:
    model, report = learned
    rows = torch.from_numpy(vectors(300, seed=4))
    back = model.decode(model.encode(rows)[0])
    torch.testing.assert_close(back.norm(dim=1), torch.ones(300))
    assert float(F.cosine_similarity(back, rows).mean()) > 0.7
    held, train = report["relative_mse_held_out"], report["relative_mse_train"]
    assert isinstance(held, float)
    assert isinstance(train, float)
    assert train <= held < 1


def test_every_level_is_used_evenly(learned: tuple[SemanticId, dict[str, object]]) -> None:
    levels = measures.usage(
        in_batches(torch.from_numpy(vectors(3000, seed=1)), learned[0]).numpy(), SMALL
    )
    assert [level["entries"] for level in levels] == list(SMALL)
    assert min(level["perplexity_over_k"] for level in levels) > 0.6


def test_the_same_seed_learns_the_same_codes(
    learned: tuple[SemanticId, dict[str, object]],
) -> None:
    again, _ = learn(vectors(3000, seed=1), None, None, PLAN, lambda _: None)
    for name, value in learned[0].state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_starting_from_a_previous_tokenizer_keeps_its_codes(
    learned: tuple[SemanticId, dict[str, object]],
) -> None:
    more = np.concatenate([vectors(3000, seed=1), vectors(300, seed=9)])
    warm, report = learn(more, None, learned[0], PLAN, lambda _: None)
    churn = report["churn"]
    assert isinstance(churn, dict)
    assert churn["first_code"] <= 0.005
    assert churn["full_id"] <= 0.03
    rows = torch.from_numpy(vectors(500, seed=5))
    kept = (warm.encode(rows)[0] == learned[0].encode(rows)[0]).all(1)
    assert float(kept.float().mean()) >= 0.97
    with pytest.raises(ReferenceModelError, match="takes 48 values a row, these rows have 50"):
        learn(vectors(3000, seed=1, dimension=50), None, learned[0], PLAN, lambda _: None)


def test_pairs_draw_the_same_product_together() -> None:
    """Products differ in 4 of 48 dimensions; everything else is noise that pairs tell apart."""
    rng = np.random.default_rng(2)
    product = rng.integers(150, size=3000)
    rows = rng.normal(size=(3000, 48)) * 0.6
    rows[:, :4] += rng.normal(size=(150, 4))[product]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    left, right = rng.integers(3000, size=(2, 600_000))
    same = product[left] == product[right]
    keep = same | (rng.random(600_000) < 0.02)
    pairs = np.stack([left, right, same], 1)[keep].astype(np.int64)
    seen, judged = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
    generator = torch.Generator().manual_seed(0)
    weight = learn_metric(torch.from_numpy(rows), seen, 400, 0.02, generator).numpy()
    scores = []
    for side in (rows, rows @ weight):
        unit = side / np.linalg.norm(side, axis=1, keepdims=True)
        cosine = (unit[judged[:, 0]] * unit[judged[:, 1]]).sum(1).astype(float)
        scores.append(measures.auc(cosine, judged[:, 2] == 1))
    assert scores[1] > scores[0] + 0.03
    model, report = learn(rows, seen, None, PLAN, lambda _: None)
    assert float(torch.linalg.matrix_norm(model.basis, 2)) <= 1.0001
    assert report["rows_held_out"] != 0


def test_the_same_product_stays_on_one_side() -> None:
    pairs = np.array([[0, 900, 1], [900, 500, 1], [3, 4, 0]])
    group = split.groups(1000, pairs)
    held = split.share(group, 0.5, seed=7)
    assert held[0] == held[900] == held[500]
    assert group[3] != group[4]
    assert 0.4 < held.mean() < 0.6


def test_no_entry_stays_empty() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat([torch.zeros(500, 4), torch.randn(120, 4, generator=generator) + 3])
    keys = kmeans(rows, 8, 6, generator)
    assert len(nearest(rows, keys).unique()) >= 7


def test_labels_that_tie_everything_together_still_leave_rows_to_judge() -> None:
    chain = np.stack([np.arange(999), np.arange(1, 1000), np.ones(999, np.int64)], 1)
    held = split.share(split.groups(1000, chain), 0.2, seed=1)
    assert 100 <= held.sum() <= 200


def test_a_lopsided_codebook_is_evened_out() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(4000, 8, generator=generator) * torch.rand(4000, 1, generator=generator) ** 2
    keys = rows[:64].clone()
    before = perplexity(torch.bincount(nearest(rows, keys), minlength=64))
    after = balance(rows, keys, 0.9, 16)
    assert perplexity(torch.bincount(after.choose(rows), minlength=64)) > max(before + 0.02, 0.85)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ReferenceModelError, match="expected at least 16384 rows"):
        learn(vectors(100, seed=1), None, None, Plan(), lambda _: None)


@pytest.mark.parametrize(
    ("rows", "pairs", "said"),
    [
        (vectors(256, 1).astype(np.float64), None, "expected rows float32"),
        (vectors(256, 1)[0], None, "expected rows float32"),
        (vectors(256, 1) * np.float32(2), None, "256 that are not, the first at 0"),
        (np.full((256, 48), np.nan, np.float32), None, "expected unit rows"),
        (vectors(256, 1), np.zeros((3, 2), np.int64), "expected pairs int64"),
        (vectors(256, 1), np.array([[0, 256, 1]]), "expected pairs of rows 0..255"),
        (vectors(256, 1), np.array([[0, 5, 2]]), "expected labels 0 and 1"),
    ],
)
def test_what_is_not_rows_and_pairs_is_refused(
    rows: NDArray[np.float32], pairs: NDArray[np.int64] | None, said: str
) -> None:
    with pytest.raises(ReferenceModelError, match=said):
        learn(rows, pairs, None, PLAN, lambda _: None)


def test_the_previous_sizes_and_metric_stay(
    learned: tuple[SemanticId, dict[str, object]],
) -> None:
    rows = vectors(3000, seed=1)
    with pytest.raises(ReferenceModelError, match="expected a previous tokenizer of sizes"):
        learn(rows, None, learned[0], replace(PLAN, sizes=(8,) * 6), lambda _: None)
    pairs = np.array([[0, 1, 1], [2, 3, 0]])
    model, report = learn(rows, pairs, learned[0], PLAN, lambda _: None)
    assert report["pairs"] == "split only: the previous metric stays"
    assert torch.equal(model.basis, learned[0].basis)
    assert learned[1]["pairs"] == "none"


def test_the_page_of_plots_is_a_picture(
    learned: tuple[SemanticId, dict[str, object]], tmp_path: Path
) -> None:
    draw(learned[0], vectors(300, seed=1), learned[1], tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    nearest = learned[1]["nearest_held_out"]
    assert isinstance(nearest, list)
    assert len(nearest) == 8
    kept = [set(each["before"]) & set(each["after"]) for each in nearest]
    assert sum(map(len, kept)) >= 8
    assert all(each["row"] not in each["before"] for each in nearest)


def test_sizes_come_back_from_a_file(
    learned: tuple[SemanticId, dict[str, object]], tmp_path: Path
) -> None:
    file = tmp_path / "weights.safetensors"
    save_weights(learned[0], file, {})
    back = SemanticId.from_weights(file)
    assert (back.sizes, back.dimension) == (SMALL, 48)
    rows = torch.from_numpy(vectors(300, seed=6))
    for level in range(len(NAMES)):
        assert torch.equal(back.keys(level), learned[0].keys(level))
    first = learned[0].encode(rows)[0][:, 0]
    assert float((back.encode(rows)[0][:, 0] == first).float().mean()) > 0.99


def test_the_committed_codebooks_name_their_encoders() -> None:
    file, card = SHIPPED / "semantic_id.safetensors", read_card("semantic_id")
    assert file.stat().st_size <= 12_000_000
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
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(ReferenceModelError, match="does not hold weights"):
        SemanticId.from_weights(tmp_path / "broken.safetensors")
