"""Learns the tokenizer's codebooks by residual k-means and measures them on held-out items.

In: unit rows float32 (n, 384). Out: a `SemanticId` and its figures. Rows are held out in whole
groups: labelled same-product pairs where there are any, else runs of neighbouring rows, since
files keep the views of one item together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.reference.errors import ReferenceModelError
from export.reference.semantic_id import LEVELS, SCALES, SemanticId

_RUN = 64  # neighbouring rows that are held out together
_CHUNK = 4096  # rows scored at once: 4,096 x 4,096 scores are 64 MiB
Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Plan:
    """How the codebooks are learned.

    Attributes:
        seed: of the split, the starts and the reseeding.
        sweeps: k-means iterations a level.
        held_out: share of the rows that only measure.
    """

    seed: int = 7
    sweeps: int = 25
    held_out: float = 0.1


def learn(
    rows: Rows,
    pairs: NDArray[np.int64] | None,
    previous: SemanticId | None,
    plan: Plan,
    step: Callable[[str], None],
) -> tuple[SemanticId, dict[str, object]]:
    """Learns the tokenizer.

    Args:
        rows: unit rows float32 (n, 384).
        pairs: int64 (m, 3) row, row, same product; or None.
        previous: start from its projection and codebooks, so that codes stay what they were.
        step: told after every level.

    Returns: the tokenizer and its report (JSON values).
    Raises: `ReferenceModelError` when there are too few rows for the largest codebook.
    """
    largest = max(size for _, size in LEVELS)
    held = split(len(rows), pairs, plan)
    if (~held).sum() < 4 * largest:
        raise ReferenceModelError(
            f"expected at least {4 * largest} rows to learn from ({largest} entries, 4 rows each), "
            f"found {(~held).sum()} after {held.sum()} were held out; add embeddings"
        )
    x = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
    train, test = x[torch.from_numpy(~held)], x[torch.from_numpy(held)]
    generator = torch.Generator().manual_seed(plan.seed)
    model = previous if previous is not None else SemanticId()
    if previous is None:
        _project(model, train)
    h = model.latent(train)
    for level, (name, size) in enumerate(LEVELS):
        if level % 2 == 0:
            residual = h
        start = model.entries(level).clone() if previous is not None else None
        table = kmeans(residual, size, start, plan.sweeps, generator)
        model.entries(level).copy_(table)
        residual = residual - table[nearest(residual, table)]
        step(name)
    _weigh(model, h)
    return model.eval(), report(model, train, test)


def split(count: int, pairs: NDArray[np.int64] | None, plan: Plan) -> NDArray[np.bool_]:
    """Which rows are held out: bool (count,). Pairs of the same product stay on one side."""
    group = np.arange(count) // _RUN
    if pairs is not None:
        group = _components(count, pairs[pairs[:, 2] == 1, :2])
    chance = np.random.default_rng(plan.seed).random(int(group.max()) + 1)
    held: NDArray[np.bool_] = chance[group] < plan.held_out
    return held


def _components(count: int, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Connected components of rows: int64 (count,)."""
    parent = np.arange(count)
    for left, right in edges.tolist():
        while parent[left] != left:
            parent[left] = left = parent[parent[left]]
        while parent[right] != right:
            parent[right] = right = parent[parent[right]]
        parent[max(left, right)] = min(left, right)
    while (parent[parent] != parent).any():
        parent = parent[parent]
    return parent


def _project(model: SemanticId, rows: Tensor) -> None:
    """Sets mean and basis to the principal components of `rows`, signs fixed."""
    model.mean.copy_(rows.mean(0))
    centred = (rows - model.mean).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    basis = vectors.flip(1)[:, : model.basis.shape[1]]
    signs = basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    model.basis.copy_((basis * signs).float())


def nearest(rows: Tensor, table: Tensor) -> Tensor:
    """Index of the nearest entry of each row: int64 (n,)."""
    half = table.square().sum(1) / 2
    return torch.cat([(part @ table.T - half).argmax(1) for part in _chunks(rows)])


def _chunks(rows: Tensor) -> Iterator[Tensor]:
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


def kmeans(
    rows: Tensor, size: int, start: Tensor | None, sweeps: int, generator: torch.Generator
) -> Tensor:
    """Lloyd's k-means; empty entries move to rows of the fullest ones.

    Returns: float32 (size, d).
    """
    table = start
    if table is None:
        table = rows[torch.randperm(len(rows), generator=generator)[:size]].clone()
    for _ in range(sweeps):
        index = nearest(rows, table)
        counts = torch.bincount(index, minlength=size).to(rows.dtype)
        sums = torch.zeros_like(table).index_add_(0, index, rows)
        table = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], table)
        empty = torch.nonzero(counts == 0).flatten()
        if len(empty):
            # Rows far from the centre of a crowded entry: what a new entry helps most.
            need = counts[index] * (rows - table[index]).square().sum(1)
            found = torch.multinomial(need + 1e-12, min(len(empty), len(rows)), generator=generator)
            table[empty[: len(found)]] = rows[found]
    return table


def _weigh(model: SemanticId, h: Tensor) -> None:
    """Sets the scales' weights in the decoder by least squares on the training rows."""
    residual_parts = []
    for scale in range(len(SCALES)):
        centre, rest = model.entries(2 * scale), model.entries(2 * scale + 1)
        coarse = centre[nearest(h, centre)]
        residual_parts.append(coarse + rest[nearest(h - coarse, rest)])
    a = torch.stack([part.flatten() for part in residual_parts], dim=1).double()
    gram, target = a.T @ a, a.T @ h.flatten().double()
    # In sample the largest codebook looks better than it is: lean on equal shares.
    ridge = gram.diagonal().mean()
    equal = torch.full((len(SCALES),), 1 / len(SCALES), dtype=torch.double)
    solved = torch.linalg.solve(gram + ridge * torch.eye(len(SCALES)), target + ridge * equal)
    model.weight.copy_(solved.float())


def report(model: SemanticId, train: Tensor, test: Tensor) -> dict[str, object]:
    """Reconstruction and usage: relative squared error, and per level perplexity over K and dead
    entries, on training, held-out and all rows."""
    figures: dict[str, object] = {"rows_train": len(train), "rows_held_out": len(test)}
    centre = train.mean(0)
    codes = []
    for name, rows in (("train", train), ("held_out", test)):
        if not len(rows):
            continue
        found = torch.cat([model.encode(part)[0] for part in _chunks(rows)])
        codes.append(found)
        error = (model.decode(found) - rows).square().sum() / (rows - centre).square().sum()
        figures[f"relative_mse_{name}"] = round(float(error), 4)
        figures[f"distinct_ids_{name}"] = round(len(torch.unique(found, dim=0)) / len(found), 4)
    together = torch.cat(codes).long()
    usage = {}
    for level, (name, size) in enumerate(LEVELS):
        share = torch.bincount(together[:, level], minlength=size) / len(together)
        entropy = -(share * share.clamp(min=1e-12).log()).sum()
        usage[name] = {
            "entries": size,
            "dead": int((share == 0).sum()),
            "perplexity_over_k": round(float(entropy.exp()) / size, 4),
        }
    return {**figures, "levels": usage}
