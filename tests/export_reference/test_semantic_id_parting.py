"""The last step of learning: no entry without rows, no ID for two products."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from export.semantic_id import measures
from export.semantic_id.measures import in_batches
from export.semantic_id.parting import separate, wake
from tests.export_reference.semantic_id_support import SMALL, Learned, vectors

pytestmark = pytest.mark.usefixtures("one_thread")


def test_unused_entries_wake_and_other_codes_stay(
    learned: Learned,
) -> None:
    model, rows = deepcopy(learned[0]), torch.from_numpy(vectors(3000, seed=1))
    used = int(in_batches(rows, model)[:, 4].bincount().argmin())
    model.bias(4)[used] = -9.0
    before = in_batches(rows, model)
    assert int(before[:, 4].bincount(minlength=64)[used]) == 0
    order_before = measures.order(rows.numpy(), model.decode(before).numpy())["recall_10"]
    assert wake(model, rows) == 0
    after = in_batches(rows, model)
    assert min(int(after[:, i].bincount(minlength=SMALL[i]).min()) for i in range(6)) > 0
    assert float((after[:, :4] == before[:, :4]).all(1).float().mean()) > 0.98
    halved = (after[:, 4] == used).sum()
    assert int((after[:, 4] != before[:, 4]).sum()) <= int(halved) * 1.1 + 3
    order_after = measures.order(rows.numpy(), model.decode(after).numpy())["recall_10"]
    assert order_after > order_before - 0.02


def test_nothing_wakes_where_all_rows_are_the_same(
    learned: Learned,
) -> None:
    model = deepcopy(learned[0])
    rows = torch.from_numpy(vectors(1, seed=1)).expand(500, -1)
    assert wake(model, rows) == sum(SMALL) - 6


def test_products_that_share_an_id_are_parted(
    learned: Learned,
) -> None:
    """Twelve rows have a twin close by; the last level has sixteen entries to spare."""
    model = deepcopy(learned[0])
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
    assert torch.equal(in_batches(rows, model)[:, 4], codes[:, 4])
    copies = rows[:50].repeat(2, 1)  # nothing can part these
    assert separate(deepcopy(model), copies[[0, 50]], product[:2]) == 0
