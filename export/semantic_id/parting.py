"""The last step of learning: entries that nobody uses part crowds, or products that share an ID.

In: a filled `SemanticId` and rows. Out: the same model, changed in place. An entry is parted by a
plane: both halves keep its place (within three steps of the grid), its value and its activation on
the plane, so that no code changes but those of its own rows.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.semantic_id.codebooks import halves, nearest
from export.semantic_id.measures import number_ids
from export.semantic_id.model import GRID, NAMES, SemanticId

_STEPS = 4  # dimensions in which the halves differ: more would let them grow into their neighbours
_ROUNDS = 24
_SPARE = 2  # rows that an entry may lose for the sake of a collision


def wake(model: SemanticId, rows: Tensor) -> int:
    """Gives every entry that no row (n, D) chooses half of the most crowded one's rows.

    Returns: how many entries are still unused: where all rows of every crowd are the same.
    """
    asleep = 0
    for level in range(len(NAMES)):
        for _ in range(_ROUNDS):
            residual, codes = _walk(model, rows, level)
            counts = torch.bincount(codes[:, level], minlength=model.sizes[level])
            dead = torch.nonzero(counts == 0).flatten().tolist()
            members = torch.split(torch.argsort(codes[:, level], stable=True), counts.tolist())
            crowds = torch.argsort(counts, descending=True, stable=True).tolist()
            moved = 0
            for entry in crowds:
                if moved == len(dead) or counts[entry] < 2:
                    break
                part = residual[members[entry]]
                upper = halves(part)
                if upper is not None:
                    _part(
                        model,
                        level,
                        (entry, dead[moved]),
                        part[upper].mean(0),
                        part[~upper].mean(0),
                    )
                    moved += 1
            if not moved:
                break
        asleep += len(dead)
    return asleep


def separate(model: SemanticId, rows: Tensor, product: NDArray[np.int64]) -> int:
    """Parts entries of the last level until different products no longer share all six codes.

    Entries that hardly any row chooses are given up for it. Rows that are the same to the search
    stay together.

    Args:
        rows: (n, D). product: int64 (n,), equal where rows are one product.

    Returns: how many IDs are still shared.
    """
    last = len(NAMES) - 1
    residual, codes = _walk(model, rows, last)
    before = torch.from_numpy(number_ids(codes[:, :last].int().numpy()))
    made: set[int] = set()
    for _ in range(_ROUNDS):
        chosen = nearest(residual, model.keys(last), model.bias(last))
        counts = torch.bincount(chosen, minlength=model.sizes[last])
        worst: dict[int, tuple[float, int, int]] = {}
        shared = 0
        for members in _crowds(before, chosen):
            apart = torch.cdist(residual[members], residual[members]).numpy()
            named = product[members]
            apart[named[:, None] == named[None, :]] = 0
            one, other = divmod(int(apart.argmax()), len(members))
            if apart[one, other] > 0:
                shared += 1
                entry, far = int(chosen[members[0]]), float(apart[one, other])
                if far > worst.get(entry, (0.0,))[0]:
                    worst[entry] = far, int(members[one]), int(members[other])
        idle = torch.argsort(counts, stable=True).tolist()
        spare = (e for e in idle if e not in worst and (e not in made or not counts[e]))
        parted = 0
        for (entry, (_, one, other)), unused in zip(worst.items(), spare, strict=False):
            if counts[unused] > _SPARE:
                break
            _part(model, last, (entry, unused), residual[one], residual[other])
            made |= {entry, unused}
            parted += 1
        if not parted:
            break
    return shared


def _crowds(before: Tensor, chosen: Tensor) -> Iterator[NDArray[np.int64]]:
    """Places of the rows of every ID that two rows or more have."""
    ids = number_ids(torch.stack([before, chosen], 1).int().numpy())
    order = np.argsort(ids, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
        if len(part) > 1:
            yield part


def _walk(model: SemanticId, rows: Tensor, until: int) -> tuple[Tensor, Tensor]:
    """What level `until` sees of rows (n, D): (n, latent), and the codes up to it: int64."""
    latent = model.latent(rows)
    carried, residual, codes = torch.zeros_like(latent), latent, []
    for level in range(until + 1):
        if level % 2 == 0:
            residual = latent - model.carry * carried
        seen = residual
        chosen = nearest(residual, model.keys(level), model.bias(level))
        codes.append(chosen)
        entry = model.keys(level)[chosen]
        residual, carried = residual - entry, carried + entry
    return seen, torch.stack(codes, 1)


def _part(
    model: SemanticId, level: int, entries: tuple[int, int], one: Tensor, other: Tensor
) -> None:
    """Lets two entries share the rows of the first: those nearer `one`, those nearer `other`."""
    keys, bias, values = model.keys(level), model.bias(level), model.values(level)
    entry = entries[0]
    middle, across = (one + other) / 2, one - other
    step = torch.zeros_like(across)
    most = across.abs().topk(min(_STEPS, len(across))).indices
    step[most] = across[most].sign() / GRID
    old = keys[entry].clone()
    level_there = middle @ old - old.square().sum() / 2 + bias[entry]
    values[entries[1]] = values[entry]
    for place, key in zip(entries, (old + step, old - step), strict=True):
        keys[place] = key
        bias[place] = level_there - middle @ key + key.square().sum() / 2
