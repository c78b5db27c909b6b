"""One codebook: k-means with reseeding, then evened out, so that entries are chosen alike often.

In: rows float32 (n, d) of one level. Out: a `Codebook`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from export.semantic_id.search import on_grid

_PRIOR = 2.0  # rows at zero that every mean counts in
_MOVES = 32  # a K-th of the entries move in a round of evening out
_CROWDED = 4  # times as many rows as the entry that comes to help
_POWER = 4  # steps of power iteration: the main direction need not be exact
_SAME = 1e-8  # squared distance of rows that no entry can part
_CHUNK = 256  # rows scored at once: with 4,096 entries 4 MiB, which stays in the cache


@dataclass(frozen=True, slots=True)
class Codebook:
    """Entries float32 (K, d) on the search's grid, and what is added to their activation (K,)."""

    keys: Tensor
    bias: Tensor

    def choose(self, rows: Tensor) -> Tensor:
        """The entry of each row (n, d): int64 (n,)."""
        return nearest(rows, self.keys, self.bias)


def nearest(rows: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
    """argmax_j <r, k_j> - |k_j|^2 / 2 + b_j of each row: int64 (n,)."""
    threshold = -keys.square().sum(1) / 2
    if bias is not None:
        threshold = threshold + bias
    transposed = keys.T.contiguous()
    score = torch.empty(_CHUNK, len(keys))
    found = torch.empty(len(rows), dtype=torch.int64)
    with torch.no_grad():
        for start, part in _chunks(rows):
            out = score[: len(part)]
            torch.addmm(threshold, part, transposed, out=out)
            found[start : start + len(part)] = out.argmax(1)
    return found


def _chunks(rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    return ((start, rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK))


def kmeans(
    rows: Tensor, size: int, sweeps: int, generator: torch.Generator, start: Tensor | None = None
) -> Tensor:
    """Lloyd's k-means; dead entries move to rows of the crowded ones. Returns float32 (size, d)."""
    keys = start
    if keys is None:
        keys = rows[torch.randperm(len(rows), generator=generator)[:size]].clone()
    for _ in range(sweeps):
        chosen = nearest(rows, keys)
        counts = torch.bincount(chosen, minlength=size)
        keys = means(rows, chosen, keys)
        dead = torch.nonzero(counts == 0).flatten()
        if len(dead):
            # Rows far from the centre of a crowded entry: what a new entry helps most.
            need = counts[chosen] * (rows - keys[chosen]).square().sum(1)
            found = torch.multinomial(need + 1e-12, min(len(dead), len(rows)), generator=generator)
            keys[dead[: len(found)]] = rows[found]
    return keys


def means(rows: Tensor, chosen: Tensor, keys: Tensor) -> Tensor:
    """The mean of every entry's rows, shrunk as by two more rows at zero; without rows, no change.

    Unshrunk, an entry of one row is that row: nothing is left of it for the next level to code,
    while of a row that was not learned from very much is.
    """
    counts = torch.bincount(chosen, minlength=len(keys)).to(rows.dtype)[:, None]
    sums = torch.zeros_like(keys).index_add_(0, chosen, rows)
    return torch.where(counts > 0, sums / (counts + _PRIOR), keys)


def balance(rows: Tensor, keys: Tensor, evenness: float, rounds: int) -> Codebook:
    """Moves entries (K, d) until usage is even: the least used go where the most used are.

    A round gives every crowded entry's rows, halved across their main direction, to it and to one
    that hardly any row chooses; then all entries move to the means of their rows. As in LBG (Linde,
    Buzo, Gray, 1980), but by how often entries are chosen rather than by their error.

    Args:
        evenness: the perplexity over K to stop at, once no entry is dead.
        rounds: at most so many; the one with the fewest dead entries, then the evenest, is kept.
    """
    keys, size = on_grid(keys), len(keys)
    best, reached = keys, (-size - 1, 0.0)
    for number in range(rounds + 1):
        chosen = nearest(rows, keys)
        counts = torch.bincount(chosen, minlength=size)
        dead, even = int((counts == 0).sum()), perplexity(counts)
        if (-dead, even) > reached:
            best, reached = keys, (-dead, even)
        if number == rounds or (even >= evenness and not dead):
            break
        keys = on_grid(_halve_crowded(rows, means(rows, chosen, keys), chosen, counts))
    return Codebook(best, torch.zeros(size))


def _halve_crowded(rows: Tensor, keys: Tensor, chosen: Tensor, counts: Tensor) -> Tensor:
    members = torch.split(torch.argsort(chosen, stable=True), counts.tolist())
    rank = torch.argsort(counts, stable=True).tolist()
    moves = max(int((counts == 0).sum()), len(keys) // _MOVES)
    for idle, crowded in zip(rank[:moves], rank[:-moves:-1], strict=False):
        if counts[crowded] < _CROWDED * max(int(counts[idle]), 1):
            break
        part = rows[members[crowded]]
        upper = halves(part)
        if upper is not None:
            for entry, half in ((idle, part[upper]), (crowded, part[~upper])):
                keys[entry] = half.sum(0) / (len(half) + _PRIOR)
    return keys


def halves(rows: Tensor) -> Tensor | None:
    """Which rows (n, d) lie on the one side across their main direction: bool (n,).

    None where all rows are the same.
    """
    centred = rows - rows.mean(0)
    length = centred.square().sum(1)
    if len(rows) < 2 or float(length.max()) < _SAME:
        return None
    direction = centred[length.argmax()]
    for _ in range(_POWER):
        direction = centred.T @ (centred @ direction)
        direction = direction / direction.norm().clamp(min=1e-12)
    place = centred @ direction
    upper = place > place.median()
    if not bool(upper.any()):
        upper = place > place.mean()
    return upper if bool(upper.any()) else None


def perplexity(counts: Tensor) -> float:
    """exp(entropy) of how often entries (K,) are chosen, over K: 1 where all are alike."""
    share = counts.double() / counts.sum()
    return float((-(share * share.clamp(min=1e-12).log()).sum()).exp()) / len(counts)
