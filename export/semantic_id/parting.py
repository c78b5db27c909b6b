"""The last step of learning: entries that nobody uses part crowds, or products that share an ID.

In: a filled `SemanticId` and rows. Out: the same model, changed in place. An entry is parted by a
plane: both halves keep its place (within a step of the grid), its value and its activation on
the plane, so that hardly a code changes but those of its own rows.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.semantic_id.codebooks import halves
from export.semantic_id.measures import in_batches, number_ids
from export.semantic_id.model import NAMES, SemanticId
from export.semantic_id.search import GRID, seen_by

_STEPS = 1  # dimensions in which the halves differ: more would let them grow into others
_ROUNDS = 24
_CHUNK = 256
_SPARE = 2  # rows that an entry may lose for the sake of a collision


def wake(model: SemanticId, rows: Tensor) -> int:
    """Gives every entry that no row (n, D) chooses half of the most crowded one's rows.

    Returns: how many entries are still unused: where all rows of every crowd are the same.
    """
    asleep = 0
    codes = in_batches(rows, model).long()
    for level in range(len(NAMES)):
        for _ in range(_ROUNDS):
            counts = torch.bincount(codes[:, level], minlength=model.sizes[level])
            dead = torch.nonzero(counts == 0).flatten().tolist()
            if not dead or not _share_out(model, rows, level, dead):
                break
            codes = in_batches(rows, model).long()
        asleep += len(dead)
    return asleep


def _share_out(model: SemanticId, rows: Tensor, level: int, dead: list[int]) -> int:
    """Gives `dead` entries half of the most crowded ones' rows. Returns how many it gave."""
    seen, codes = _walk(model, rows, level)
    spread = seen.std(0).clamp(min=1 / GRID)
    counts = torch.bincount(codes[:, level], minlength=model.sizes[level])
    members = torch.split(torch.argsort(codes[:, level], stable=True), counts.tolist())
    moved = 0
    for entry in torch.argsort(counts, descending=True, stable=True).tolist():
        if moved == len(dead) or counts[entry] < 2:
            break
        part = seen[members[entry]]
        upper = halves(part)
        if upper is not None:
            sides = part[upper].mean(0), part[~upper].mean(0)
            _part(model, level, (entry, dead[moved]), sides, spread)
            moved += 1
    return moved


def separate(model: SemanticId, rows: Tensor, product: NDArray[np.int64]) -> int:
    """Parts entries of the last level until different products no longer share all six codes.

    Entries that hardly any row chooses are given up for it. Rows that are the same to the search
    stay together.

    Args:
        rows: (n, D). product: int64 (n,), equal where rows are one product.

    Returns: how many IDs are still shared.
    """
    last = len(NAMES) - 1
    made: set[int] = set()
    for _ in range(_ROUNDS):
        residual, codes = _walk(model, rows, last)
        before, chosen = torch.from_numpy(number_ids(codes[:, :last].int().numpy())), codes[:, last]
        spread = residual.std(0).clamp(min=1 / GRID)
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
        kept = set(worst) | {entry for entry in made if counts[entry]}
        parted = 0
        spare = _spare(model, residual, before, chosen, kept)
        for (entry, (_, one, other)), unused in zip(worst.items(), spare, strict=False):
            _part(model, last, (entry, unused), (residual[one], residual[other]), spread)
            made |= {entry, unused}
            parted += 1
        if not parted:
            break
    return shared


def _spare(
    model: SemanticId, residual: Tensor, before: Tensor, chosen: Tensor, kept: set[int]
) -> list[int]:
    """Entries of the last level that are not needed, the least used first.

    Their rows, if any, have a second choice that gives them an ID which nobody has.
    """
    last = len(NAMES) - 1
    size = model.sizes[last]
    counts = torch.bincount(chosen, minlength=size)
    rows = torch.nonzero(counts[chosen] <= _SPARE).flatten()
    second = _second(model, last, residual[rows])
    taken = set(zip(before.tolist(), chosen.tolist(), strict=True))
    needed = set(kept)
    for row, other in zip(rows.tolist(), second.tolist(), strict=True):
        place = int(before[row]), other
        if place in taken:
            needed.add(int(chosen[row]))
        taken.add(place)
    idle = torch.argsort(counts, stable=True).tolist()
    return [entry for entry in idle if counts[entry] <= _SPARE and entry not in needed]


def _second(model: SemanticId, level: int, residual: Tensor) -> Tensor:
    """The second choice of each residual (n, latent), by what is served: int64 (n,)."""
    keys, threshold = model.tables()[level]
    scores = (torch.addmm(threshold, part, keys.T) for part in torch.split(residual, _CHUNK))
    return torch.cat([score.topk(2, dim=1).indices[:, 1] for score in scores])


def _crowds(before: Tensor, chosen: Tensor) -> Iterator[NDArray[np.int64]]:
    """Places of the rows of every ID that two rows or more have."""
    ids = number_ids(torch.stack([before, chosen], 1).int().numpy())
    order = np.argsort(ids, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
        if len(part) > 1:
            yield part


def _walk(model: SemanticId, rows: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """What `level` sees of rows (n, D) as it chooses: (n, latent); the codes: int64 (n, 6)."""
    latent = model.latent(rows)
    return seen_by(level, latent, model.tables(), float(model.carry), int(model.again))


def _part(
    model: SemanticId,
    level: int,
    entries: tuple[int, int],
    sides: tuple[Tensor, Tensor],
    spread: Tensor,
) -> None:
    """Lets two entries share the rows of the first, by a plane half-way between the two sides.

    It is drawn across the dimensions in which these differ most for the `spread` (latent,) of all
    rows: there other rows are near the plane, and gain least from the halves' being two.
    """
    one, other = sides
    keys, bias, values = model.keys(level), model.bias(level), model.values(level)
    entry = entries[0]
    middle, across = (one + other) / 2, one - other
    step = torch.zeros_like(across)
    most = (across.abs() / spread).topk(min(_STEPS, len(across))).indices
    step[most] = across[most].sign() / GRID
    old = keys[entry].clone()
    level_there = middle @ old - old.square().sum() / 2 + bias[entry]
    values[entries[1]] = values[entry]
    for place, key in zip(entries, (old + step, old - step), strict=True):
        keys[place] = key
        bias[place] = level_there - middle @ key + key.square().sum() / 2
