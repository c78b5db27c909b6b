"""The last step of learning: no entry without rows, no ID for two products, no row twice."""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from export.semantic_id import measures, split
from export.semantic_id.learning import Plan, learn
from export.semantic_id.measures import in_batches
from export.semantic_id.model import SemanticId
from export.semantic_id.parting import separate, wake
from export.semantic_id.tuning import Tuning

SMALL = (16, 16, 32, 32, 64, 64)
PLAN = Plan(seed=3, sizes=SMALL, latent=24, held_out=0.1, tuning=Tuning(rounds=1, steps=2))


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
def learned() -> SemanticId:
    return learn(vectors(1500, seed=1), None, None, PLAN, lambda _: None)[0]


def test_unused_entries_wake_and_other_codes_stay(
    learned: SemanticId,
) -> None:
    model, rows = deepcopy(learned), torch.from_numpy(vectors(1500, seed=1))
    used = int(in_batches(rows, model)[:, 4].bincount().argmin())
    model.bias(4)[used] = -9.0
    before = in_batches(rows, model)
    assert int(before[:, 4].bincount(minlength=64)[used]) == 0
    order_before = measures.order(rows.numpy(), model.decode(before).numpy())["recall_10"]
    assert wake(model, rows) == 0
    after = in_batches(rows, model)
    assert min(int(after[:, i].bincount(minlength=SMALL[i]).min()) for i in range(6)) > 0
    assert torch.equal(after[:, :4], before[:, :4])
    halved = (after[:, 4] == used).sum()
    assert int((after[:, 4] != before[:, 4]).sum()) <= int(halved) * 1.1 + 3
    order_after = measures.order(rows.numpy(), model.decode(after).numpy())["recall_10"]
    assert order_after > order_before - 0.02


def test_nothing_wakes_where_all_rows_are_the_same(
    learned: SemanticId,
) -> None:
    model = deepcopy(learned)
    rows = torch.from_numpy(vectors(1, seed=1)).expand(500, -1)
    assert wake(model, rows) == sum(SMALL) - 6


def test_products_that_share_an_id_are_parted(
    learned: SemanticId,
) -> None:
    """Twelve rows have a twin close by; the last level has sixteen entries to spare."""
    model = deepcopy(learned)
    model.bias(5)[:16] = -9.0
    base = vectors(12, seed=1)
    twins = base + np.random.default_rng(1).normal(size=base.shape).astype(np.float32) * 0.004
    rows = torch.from_numpy(np.concatenate([vectors(500, seed=2), base, twins]))
    rows = F.normalize(rows, dim=1)
    product = np.arange(len(rows))

    def shared() -> int:
        ids = measures.number_ids(in_batches(rows, model).numpy())
        return int(measures.shares_an_id(ids, product).sum())

    before, codes = shared(), in_batches(rows, model)
    assert before >= 10
    left = separate(model, rows, product)
    assert shared() <= before - 8
    assert left < before / 2
    assert torch.equal(in_batches(rows, model)[:, :5], codes[:, :5])
    copies = rows[:50].repeat(2, 1)  # nothing can part these
    assert separate(deepcopy(model), copies[[0, 50]], product[:2]) == 0


def test_copies_of_a_row_are_learned_from_once() -> None:
    rows = vectors(300, seed=1)
    copied = np.concatenate([rows[:5], rows, rows[:100]])
    pairs = np.array([[0, 105, 1], [5, 304, 0], [9, 314, 1]])
    found, numbered = split.distinct(copied, pairs)
    assert np.array_equal(found, rows)
    assert numbered is not None
    assert np.array_equal(found[numbered[:, 0]], copied[pairs[:, 0]])
    assert np.array_equal(found[numbered[:, 1]], copied[pairs[:, 1]])
    assert split.distinct(rows, None)[1] is None
