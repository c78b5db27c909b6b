"""What a tokenizer keeps: order, tasks, usage, collisions, churn. All over arrays, no model here.

In: raw unit rows, reconstructed rows or codes of the same items. Judge on items that were not
learned from: in sample every large codebook looks good.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.float32]
Codes = NDArray[np.int32]
_QUERIES = 500  # rows whose neighbourhoods are compared
_NEAR = 100
_BATCH = 1024


def relative_error(rows: Tensor, hat: Tensor, mean: Tensor) -> float:
    """Squared error of `hat` (n, D) over the squared distance of `rows` (n, D) from `mean`."""
    return float((hat - rows).square().sum() / (rows - mean).square().sum())


def order(rows: Rows, hat: Rows, seed: int = 0) -> dict[str, float]:
    """Whether neighbours stay neighbours: `tau_100`, `recall_10`, `triplets`.

    Kendall's tau-b between raw and reconstructed cosines to the raw 100 nearest; the share of the
    raw 10 nearest that are among the reconstructed 10; the share of random triplets whose order is
    kept. Over at most 500 drawn queries, against all rows.
    """
    count = len(rows)
    if count < 12:
        return {}
    chosen = np.random.default_rng(seed).permutation(count)[:_QUERIES]
    taus, recalls, triplets = order_by_query(rows, hat, chosen)
    figures = {"tau_100": taus, "recall_10": recalls, "triplets": triplets}
    return {name: round(float(values.mean()), 4) for name, values in figures.items()}


def order_by_query(
    rows: Rows, hat: Rows, chosen: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Tau, recall and triplet agreement of every chosen row: three (q,)."""
    from scipy.stats import kendalltau

    raw, seen = rows[chosen] @ rows.T, hat[chosen] @ hat.T  # (q, n)
    queries = np.arange(len(chosen))
    raw[queries, chosen] = seen[queries, chosen] = -2
    near = min(_NEAR, len(rows) - 1)
    top = np.argpartition(-raw, near - 1, axis=1)[:, :near]
    kept = np.argpartition(-seen, 9, axis=1)[:, :10]
    best = np.argpartition(-raw, 9, axis=1)[:, :10]
    taus = [kendalltau(raw[i, top[i]], seen[i, top[i]]).statistic for i in queries]
    recalls = [len(np.intersect1d(best[i], kept[i])) / 10 for i in queries]
    others = np.random.default_rng(0).integers(len(rows), size=(2, len(chosen), _NEAR))
    (a, b), (c, d) = (
        [np.take_along_axis(side, each, 1) for each in others] for side in (raw, seen)
    )
    agree = ((a > b) == (c > d))[:, :].mean(1)
    return np.nan_to_num(np.array(taus)), np.array(recalls), agree


def nearest_items(rows: Rows, hat: Rows, count: int = 8, near: int = 5) -> list[dict[str, object]]:
    """Of `count` rows, evenly spaced, the `near` nearest before and after: numbers of rows."""
    if len(rows) <= near:
        return []
    found: list[dict[str, object]] = []
    for row in np.linspace(0, len(rows) - 1, count).astype(int).tolist():
        entry: dict[str, object] = {"row": row}
        for name, side in (("before", rows), ("after", hat)):
            cosine = side @ side[row]
            cosine[row] = -2
            entry[name] = np.argsort(-cosine, kind="stable")[:near].tolist()
        found.append(entry)
    return found


def usage(codes: Codes, sizes: Sequence[int]) -> list[dict[str, float | int]]:
    """Per level: entries, dead ones, coverage, perplexity over K, Gini coefficient."""
    figures: list[dict[str, float | int]] = []
    for level, size in enumerate(sizes):
        counts = np.bincount(codes[:, level], minlength=size)
        share = counts[counts > 0] / counts.sum()
        ranked = np.sort(counts)
        gini = 1 - 2 * (np.cumsum(ranked) / ranked.sum()).mean() + 1 / size
        figures.append(
            {
                "entries": size,
                "dead": int((counts == 0).sum()),
                "coverage": round(float((counts > 0).mean()), 4),
                "perplexity_over_k": round(float(np.exp(-(share * np.log(share)).sum())) / size, 4),
                "gini": round(float(gini), 4),
            }
        )
    return figures


def shares_an_id(ids: NDArray[np.int64], product: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an item has its ID in common with one of another product: bool (n,)."""
    order_ = np.lexsort((product, ids))
    both = np.stack([ids[order_], product[order_]], 1)
    kinds = both[np.r_[True, (both[1:] != both[:-1]).any(1)]]  # each (id, product) once
    crowded = np.unique(kinds[:, 0], return_counts=True)
    shared: NDArray[np.bool_] = np.isin(ids, crowded[0][crowded[1] > 1])
    return shared


def number_ids(codes: Codes) -> NDArray[np.int64]:
    """One number for each distinct row of codes (n, 6): int64 (n,)."""
    found: NDArray[np.int64] = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    return found


def auc(score: NDArray[np.float64], label: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of scores (n,), ties counted half."""
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positive = int(label.sum())
    above = rank[label].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (len(label) - positive)))


def neighbour_votes(
    rows: Rows, label: NDArray[np.int64], fold: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the 10 nearest of the other folds, weighted by cosine, vote rightly: bool (n,)."""
    right = np.zeros(len(rows), dtype=bool)
    for number in np.unique(fold):
        asked, known = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        cosine = rows[asked] @ rows[known].T
        top = np.argpartition(-cosine, 9, axis=1)[:, :10]
        votes = np.zeros((len(asked), int(label.max()) + 1))
        weight = np.take_along_axis(cosine, top, 1).clip(1e-6)
        np.add.at(votes, (np.arange(len(asked))[:, None], label[known][top]), weight)
        right[asked] = votes.argmax(1) == label[asked]
    return right


def in_batches(rows: Tensor, encode: torch.nn.Module) -> Tensor:
    """Codes of many rows, 1,024 at a time: int32 (n, 6)."""
    starts = range(0, len(rows), _BATCH)
    return torch.cat([encode(rows[start : start + _BATCH])[0] for start in starts])
