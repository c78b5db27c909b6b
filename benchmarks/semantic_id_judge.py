"""What one method keeps of meaning, as losses against the raw features with 95% intervals.

In: items, reconstructed rows, codes. Out: two groups of figures: `held_out`, over products that
nothing was learned from, and `all_items`, over learned and held-out rows together, where crowding
is counted. Intervals are percentiles of a paired bootstrap over items (pairs for the AUC); for a
loss the upper end is the claim.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.semantic_id import measures

from .semantic_id_items import Items

_BOOTSTRAPS = 1000
_QUERIES = 1000
_FOLDINGS = 10  # of the items into five parts
_RIDGE = 1.0
Figure = dict[str, float]


def judge(
    data: Items, hat: NDArray[np.float32], codes: NDArray[np.int32], seed: int
) -> dict[str, dict[str, Any]]:
    """Every figure of one method; None where the items do not allow one.

    Args:
        hat: reconstructed rows (n, D) of all items, of any length. codes: (n, levels).
    """
    hat = (hat / np.linalg.norm(hat, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)
    held, mean = data.held, data.train.mean(0)
    error = ((hat - data.rows) ** 2).sum(1).astype(float)
    spread = ((data.rows - mean) ** 2).sum(1).astype(float)
    held_out: dict[str, Any] = {
        "relative_mse": interval(
            int(held.sum()), lambda pick: error[held][pick].sum() / spread[held][pick].sum(), seed
        ),
        "relative_mse_train": float(error[~held].sum() / spread[~held].sum()),
    }
    held_out["relative_mse_ratio"] = (
        held_out["relative_mse"]["value"] / held_out["relative_mse_train"]
    )
    chosen = np.random.default_rng(seed).permutation(int(held.sum()))[:_QUERIES]
    taken = measures.order_by_query(data.rows[held], hat[held], chosen)
    for name, values in zip(("tau_100", "recall_10", "triplets"), taken, strict=True):
        held_out[name] = _mean(values, seed)
    known = data.category >= 0
    held_out["knn_loss"] = _votes(data, hat, held & known, seed)
    held_out["head_loss"] = _head(data, hat, seed)
    held_out["pair_auc_loss"] = _pairs(data, hat, seed)
    crowded = measures.shares_an_id(measures.number_ids(codes), data.product).astype(float)
    floor = measures.shares_an_id(data.title, data.product).astype(float)
    everything = {
        "knn_loss": _votes(data, hat, known, seed),
        "harmful": _mean(crowded, seed),
        "harmful_floor": _mean(floor, seed),
        "harmful_above_floor": _mean(crowded - floor, seed),
    }
    return {"held_out": held_out, "all_items": everything}


def interval(count: int, of: Callable[[Any], float], seed: int) -> Figure:
    """A statistic of picked indices 0..count-1: its value and 95% bootstrap interval."""
    random = np.random.default_rng(seed)
    drawn = [of(random.integers(0, count, count)) for _ in range(_BOOTSTRAPS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": float(of(np.arange(count))), "low": float(low), "high": float(high)}


def _mean(values: NDArray[np.float64], seed: int) -> Figure:
    return interval(len(values), lambda pick: float(values[pick].mean()), seed)


def _loss(before: NDArray[Any], after: NDArray[Any], seed: int) -> Figure:
    """Percent of the accuracy before that is gone after, over the same items: 0 to 1 each."""
    return interval(
        len(before), lambda pick: 100 * (1 - after[pick].mean() / before[pick].mean()), seed
    )


def _votes(
    data: Items, hat: NDArray[np.float32], part: NDArray[np.bool_], seed: int
) -> Figure | None:
    """Loss of the 10 nearest neighbours' vote, five folds over the labelled items of `part`.

    Which items fall into which fold is worth .4 points: so ten foldings, and of each item the share
    of those in which it is named rightly.
    """
    if part.sum() < 100:
        return None
    label = np.unique(data.category[part], return_inverse=True)[1]
    folds = np.random.default_rng(seed).integers(5, size=(_FOLDINGS, int(part.sum())))
    before, after = (
        np.mean([measures.neighbour_votes(side[part], label, fold) for fold in folds], 0)
        for side in (data.rows, hat)
    )
    return _loss(before, after, seed) if before.any() else None


def _head(data: Items, hat: NDArray[np.float32], seed: int) -> Figure | None:
    """Loss of a linear head (ridge regression to classes), learned on train, asked on held out."""
    known = data.category >= 0
    learned, asked = known & ~data.held, known & data.held
    if learned.sum() < 100 or asked.sum() < 100:
        return None
    classes, label = np.unique(data.category[learned], return_inverse=True)
    right = []
    for side in (data.rows, hat):
        x = side.astype(np.float64) - side[learned].mean(0)
        gram = x[learned].T @ x[learned] + _RIDGE * np.eye(x.shape[1])
        goal = np.eye(len(classes))[label]
        weight = np.linalg.solve(gram, x[learned].T @ (goal - goal.mean(0)))
        named = classes[(x[asked] @ weight + goal.mean(0)).argmax(1)]
        right.append(named == data.category[asked])
    return _loss(right[0], right[1], seed) if right[0].any() else None


def _pairs(data: Items, hat: NDArray[np.float32], seed: int) -> Figure | None:
    """Loss of the AUC of telling the same product by cosine, over held-out pairs."""
    left, right, label = data.pairs[data.held[data.pairs[:, 0]] & data.held[data.pairs[:, 1]]].T
    same = label == 1
    if same.sum() < 20 or (~same).sum() < 20:
        return None
    scores = [(side[left] * side[right]).sum(1).astype(float) for side in (data.rows, hat)]

    def loss(pick: NDArray[np.int64]) -> float:
        before, after = (measures.auc(score[pick], same[pick]) for score in scores)
        return 100 * (1 - after / before)

    return interval(len(label), loss, seed)
