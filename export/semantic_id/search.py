"""The search for the codes of a latent, exact in float32, and the grids that make it so.

In: latents and each level's entries and thresholds. Out: codes and margins, the same in torch and
in the exported graph. Codes must not depend on batch, runtime or processor, but floating-point sums
do. So latent and entries lie on a grid of 2^-10: every product and partial sum is then a multiple
of 2^-21 below 8, and exact in float32 in whatever order it is added up
(docs/decisions/0035-exact-in-float32.md).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

# Inputs and projection keep what float32 says of a unit vector; see decision 0021.
FINE = float(1 << 24)
GRID = float(1 << 10)
_ANEW = 4  # levels that look anew: those of S and M
_CHUNK = 256  # rows looked at at once
_BLOCK = 32  # activations that are compared with each other first; measured in decision 0036


def project(features: Tensor, basis: Tensor, offset: Tensor) -> Tensor:
    """Features and a `projection` -> latent float32 (B, latent) on the grid."""
    fine = (features.double() * FINE).round() @ basis / FINE - offset
    return ((fine * (GRID / FINE)).round() / GRID).float()


class Choice(NamedTuple):
    """What a level saw, float32 (B, latent), and what it chose: code int64 (B,), by what margin
    float32 (B,), and the entry (B, latent)."""

    seen: Tensor
    code: Tensor
    margin: Tensor
    entry: Tensor


Tables = Sequence[tuple[Tensor, Tensor]]


class Chosen(Protocol):
    """Anything that says which entry (B, latent) a level chose."""

    @property
    def entry(self) -> Tensor: ...


Found = TypeVar("Found", bound=Chosen)


def search(latent: Tensor, tables: Tables, carry: float, again: int) -> tuple[Tensor, Tensor]:
    """Latent (B, latent); entries (K, latent) and thresholds (K,) of each level -> codes int32
    (B, levels), margin float32 (B, levels). See `choices`."""
    found = choices(latent, tables, carry, again)
    codes = torch.stack([each.code for each in found], 1).int()
    return codes, torch.stack([each.margin for each in found], 1)


def choices(latent: Tensor, tables: Tables, carry: float, again: int) -> list[Choice]:
    """The last choice of every level: the entry of `tables` that is activated most."""
    return walk(latent, len(tables), carry, again, lambda i, seen: _choose(seen, *tables[i]))


def seen_by(
    level: int, latent: Tensor, tables: Tables, carry: float, again: int
) -> tuple[Tensor, Tensor]:
    """What a level sees of latents (n, latent) as it chooses last: (n, latent); and all the codes:
    int64 (n, levels)."""
    seen, codes = [], []
    for part in torch.split(latent, _CHUNK):
        found = choices(part, tables, carry, again)
        seen.append(found[level].seen)
        codes.append(torch.stack([each.code for each in found], 1))
    return torch.cat(seen), torch.cat(codes)


def walk(
    latent: Tensor,
    levels: int,
    carry: float,
    again: int,
    choose: Callable[[int, Tensor], Found],
) -> list[Found]:
    """The choice of every level, centre and residual of one scale after another.

    Args:
        carry: the share of what the scales before said that a scale does not see any more.
        again: how often the levels of S and M look anew, 0 to 2. The latent is about
            carry (S + M) + L; given all the others, each chooses what makes that come true best.
            1: when L has chosen. 2: when its centre has, and then when its residual has. Not with
            a `carry` of 0.
        choose: a level and what it sees, (B, latent) -> its choice.
    """
    found: list[Found] = []
    carried = torch.zeros_like(latent)
    residual = latent
    waits = again > 1  # the last level, until S and M know what L's centre said
    for level in range(levels - waits):
        if level % 2 == 0:
            residual = latent - carry * carried
        found.append(choose(level, residual))
        residual, carried = residual - found[level].entry, carried + found[level].entry
    for _ in range(again):
        missing = residual / carry
        for level in range(_ANEW):
            seen = missing + found[level].entry
            found[level] = choose(level, seen)
            missing = seen - found[level].entry
        if len(found) < levels:
            found.append(choose(levels - 1, carry * missing))
            residual = carry * missing - found[-1].entry
    return found


def _choose(residual: Tensor, entries: Tensor, threshold: Tensor) -> Choice:
    index, margin = _largest(torch.addmm(threshold, residual, entries.T))
    return Choice(residual, index, margin, entries.index_select(0, index))


def _largest(score: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row of (B, K) the place of the largest, the first of equals, and its lead: (B,).

    argmax gives the first of equals in every runtime; topk does not in torch. Both are slow on
    long rows in ONNX Runtime, where maxima of short blocks are quick: they look at those first.
    """
    count = score.shape[1]
    if count % _BLOCK or count == _BLOCK:
        return score.argmax(1), _lead(score)
    blocks = score.reshape(-1, count // _BLOCK, _BLOCK)
    highest = blocks.amax(2)  # (B, K / 32)
    block = highest.argmax(1)
    inside = blocks.gather(1, block[:, None, None].expand(-1, 1, _BLOCK))[:, 0]  # (B, 32)
    return block * _BLOCK + inside.argmax(1), torch.minimum(_lead(highest), _lead(inside))


def _lead(score: Tensor) -> Tensor:
    best = score.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


def threshold(keys: Tensor, bias: Tensor) -> Tensor:
    """b_j - |k_j|^2 / 2 of entries (K, latent) on the scores' grid: float32 (K,)."""
    exact = ((bias.double() - keys.double().square().sum(1) / 2) * (2 * GRID * GRID)).round()
    return (exact / (2 * GRID * GRID)).float()


def on_grid(keys: Tensor) -> Tensor:
    """Entries as the search takes them: the nearest multiples of 2^-10."""
    return (keys * GRID).round() / GRID
