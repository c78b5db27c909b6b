"""One codebook: k-means with reseeding, then prices that even out how often entries are chosen.

In: rows float32 (n, d) of one level. Out: a `Codebook`. The price b_j in a_j = <r, k_j> - |k_j|^2/2
+ b_j is the dual variable of balanced assignment (an auction): whoever is chosen too often becomes
dearer. It costs nothing when codes are read, since it is folded into the threshold.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from export.semantic_id.model import on_grid

_BOUND = 1.5
_PRIOR = 2.0  # rows at zero that every mean counts in
_SINKHORN = 1  # steps a round
_MOVE = 0.3  # how far entries follow their rows in a round
_CHUNK = 256  # rows scored at once: with 4,096 entries 4 MiB, which stays in the cache


@dataclass(frozen=True, slots=True)
class Codebook:
    """Entries float32 (K, d) on the search's grid, and their prices float32 (K,)."""

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
    """The mean of every entry's rows, shrunk as by one more row at zero; without rows, no change.

    Unshrunk, an entry of one row is that row: nothing is left of it for the next level to code,
    while of a row that was not learned from very much is.
    """
    counts = torch.bincount(chosen, minlength=len(keys)).to(rows.dtype)[:, None]
    sums = torch.zeros_like(keys).index_add_(0, chosen, rows)
    return torch.where(counts > 0, sums / (counts + _PRIOR), keys)


def balance(
    rows: Tensor, keys: Tensor, evenness: float, rounds: int, generator: torch.Generator
) -> Codebook:
    """Prices for entries (K, d), and a little movement of the entries, until usage is even.

    A round solves entropic transport from rows to entries by Sinkhorn's algorithm (Cuturi, NeurIPS
    2013), which needs no step size, with the entries held still; then entries move to the means of
    what they were given, and dead ones into crowded ones.

    Args:
        evenness: the perplexity over K to stop at, once no entry is dead.
        rounds: at most so many; the evenest is kept.
    """
    keys, bias = on_grid(keys), torch.zeros(len(keys))
    best, highest = Codebook(keys, bias), -1.0
    for _ in range(rounds):
        bias = _prices(rows, keys, bias)
        chosen = nearest(rows, keys, bias)
        counts = torch.bincount(chosen, minlength=len(keys))
        dead = torch.nonzero(counts == 0).flatten()
        even = perplexity(counts)
        if even - len(dead) / len(keys) > highest:
            best, highest = Codebook(keys, bias), even - len(dead) / len(keys)
        if even >= evenness and not len(dead):
            break
        keys = keys + _MOVE * (means(rows, chosen, keys) - keys)
        if len(dead):
            far = (counts[chosen] - 1) * (rows - keys[chosen]).square().sum(1)
            found = torch.multinomial(far + 1e-12, min(len(dead), len(rows)), generator=generator)
            dead = dead[: len(found)]
            keys[dead], bias[dead] = rows[found], bias[chosen[found]]
        keys = on_grid(keys)
    return best


def _blur(rows: Tensor, keys: Tensor) -> float:
    """The scale of prices: half of what the best activation is ahead of the second by."""
    score = rows @ keys.T - keys.square().sum(1) / 2
    best = score.topk(2, dim=1).values
    return max(float((best[:, 0] - best[:, 1]).mean()) / 2, 1e-6)


def _prices(rows: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """Sinkhorn's algorithm on the entries' side: prices under which all are wanted alike."""
    blur = _blur(rows[:: max(1, len(rows) // _CHUNK)], keys)
    scaled = (keys / blur).T.contiguous()
    score = torch.empty(_CHUNK, len(keys))
    for _ in range(_SINKHORN):
        threshold = (bias - keys.square().sum(1) / 2) / blur
        wanted = torch.zeros(len(keys))
        for _, part in _chunks(rows):
            out = score[: len(part)]
            wanted += torch.addmm(threshold, part, scaled, out=out).softmax(1).sum(0)
        # Bounded: an entry that nobody wants would else be paid until everybody does.
        change = (wanted * len(keys) / len(rows)).clamp(min=1e-6).log().clamp(-_BOUND, _BOUND)
        bias = bias - blur * change
    return bias - bias.mean()


def perplexity(counts: Tensor) -> float:
    """exp(entropy) of how often entries (K,) are chosen, over K: 1 where all are alike."""
    share = counts.double() / counts.sum()
    return float((-(share * share.clamp(min=1e-12).log()).sum()).exp()) / len(counts)
