"""Learning a tokenizer: the same every time, from pairs, from a previous one, from what fits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.reference.errors import ReferenceModelError
from export.semantic_id import measures
from export.semantic_id.learning import Plan, learn
from export.semantic_id.metric import learn_metric, lens
from export.semantic_id.plots import draw
from tests.export_reference.semantic_id_support import PLAN, Learned, vectors

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_same_seed_learns_the_same_codes(
    learned: Learned,
) -> None:
    again, _ = learn(vectors(3000, seed=1), None, None, PLAN, lambda _: None)
    for name, value in learned[0].state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_starting_from_a_previous_tokenizer_keeps_its_codes(
    learned: Learned,
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
    assert (
        _auc(torch.from_numpy(rows @ weight), judged) > _auc(torch.from_numpy(rows), judged) + 0.03
    )
    model, report = learn(rows, seen, None, PLAN, lambda _: None)
    assert float(torch.linalg.matrix_norm(model.basis, 2)) <= 1.0001
    assert report["rows_held_out"] != 0
    assert lens(model.basis) is not None
    plain = learn(rows, None, None, PLAN, lambda _: None)[0]
    assert lens(plain.basis) is None
    assert (int(model.again), int(plain.again)) == (1, 2)
    found = [
        _auc(each.decode(each.encode(torch.from_numpy(rows))[0]), judged) for each in (plain, model)
    ]
    assert found[1] > found[0] + 0.005


def _auc(rows: torch.Tensor, pairs: NDArray[np.int64]) -> float:
    unit = torch.nn.functional.normalize(rows, dim=1).numpy()
    cosine = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(1).astype(float)
    return measures.auc(cosine, pairs[:, 2] == 1)


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
    learned: Learned,
) -> None:
    rows = vectors(3000, seed=1)
    with pytest.raises(ReferenceModelError, match="expected a previous tokenizer of sizes"):
        learn(rows, None, learned[0], replace(PLAN, sizes=(8,) * 6), lambda _: None)
    pairs = np.array([[0, 1, 1], [2, 3, 0]])
    model, report = learn(rows, pairs, learned[0], PLAN, lambda _: None)
    assert report["pairs"] == "split only: the previous metric stays"
    assert torch.equal(model.basis, learned[0].basis)
    assert learned[1]["pairs"] == "none"


def test_the_page_of_plots_is_a_picture(learned: Learned, tmp_path: Path) -> None:
    draw(learned[0], vectors(300, seed=1), learned[1], tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    nearest = learned[1]["nearest_held_out"]
    assert isinstance(nearest, list)
    assert len(nearest) == 8
    kept = [set(each["before"]) & set(each["after"]) for each in nearest]
    assert sum(map(len, kept)) >= 8
    assert all(each["row"] not in each["before"] for each in nearest)
