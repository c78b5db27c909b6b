"""The six levels, learned one after another: what each scale leaves over is what the next one sees.

In: latents (n, d) and targets (n, D) of the same rows. Out: `Levels`, that is codebooks and the
mean target of every entry. How far an entry's mean may be trusted is not decided here, where the
rows are known, but in `shrink` on rows that the entries have never seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.semantic_id.codebooks import Codebook, balance, kmeans
from export.semantic_id.model import CARRY, NAMES
from export.semantic_id.search import seen_by, threshold

_PRIOR = 1.0  # rows of weight that pull an entry's mean to zero


@dataclass(frozen=True, slots=True)
class Recipe:
    """Sizes of the levels, how often S and M look anew (`walk`), sweeps of k-means, and how even
    usage must be (perplexity over K)."""

    sizes: tuple[int, ...]
    again: int
    sweeps: int = 6
    evenness: float = 0.8
    rounds: int = 16


@dataclass(frozen=True, slots=True)
class Levels:
    """Six codebooks, and of each the mean target of its entries: float32 (K, D)."""

    books: tuple[Codebook, ...]
    values: tuple[Tensor, ...]

    def encode(self, latent: Tensor, again: int) -> Tensor:
        """Latents (n, d) -> codes int64 (n, 6), as they are served; `again` as in `walk`."""
        return codes_of(self.books, latent, again)

    def parts(self, codes: Tensor) -> Tensor:
        """What each level says of the target: float32 (n, 6, D)."""
        return torch.stack([value[codes[:, i]] for i, value in enumerate(self.values)], 1)


def learn_levels(
    latent: Tensor,
    target: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    told: Callable[[str], None],
    previous: tuple[Codebook, ...] | None = None,
) -> Levels:
    """Learns the levels; with `previous` its codebooks stay and only the values are learned.

    Args:
        latent: float32 (n, d). target: float32 (n, D).
        told: the name of every level that is done.
    """
    books: list[Codebook] = []
    values: list[Tensor] = []
    carried, explained = torch.zeros_like(latent), torch.zeros_like(target)
    residual, rest = latent, target
    for level, name in enumerate(NAMES):
        if level % 2 == 0:
            residual, rest = latent - CARRY * carried, target - CARRY * explained
        if level == len(NAMES) - 1 and recipe.again > 1:  # it chooses when S and M looked anew
            known = codes_of(books, latent, 1)
            residual = missing(latent, known, [book.keys for book in books])
            rest = missing(target, known, values)
        if previous is None:
            keys = kmeans(residual, recipe.sizes[level], recipe.sweeps, generator)
            book = balance(residual, keys, recipe.evenness, recipe.rounds)
        else:
            book = previous[level]
        chosen = book.choose(residual)
        value = _shrunken_means(rest, chosen, len(book.keys))
        books.append(book)
        values.append(value)
        residual, carried = residual - book.keys[chosen], carried + book.keys[chosen]
        rest, explained = rest - value[chosen], explained + value[chosen]
        told(name)
    return Levels(tuple(books), tuple(values))


def codes_of(books: Sequence[Codebook], latent: Tensor, again: int) -> Tensor:
    """Codes int64 (n, levels) of latents (n, d) by the first levels or all; see `walk`."""
    tables = [(book.keys, threshold(book.keys, book.bias)) for book in books]
    return seen_by(0, latent, tables, CARRY, again)[1]


def missing(rows: Tensor, codes: Tensor, entries: Sequence[Tensor]) -> Tensor:
    """What is left of rows (n, d) when S, M and the centre of L have spoken, each by its entry."""
    said = [entry[codes[:, level]] for level, entry in enumerate(entries)]
    return rows - CARRY * torch.stack(said[:-1]).sum(0) - said[-1]


def _shrunken_means(rows: Tensor, chosen: Tensor, size: int) -> Tensor:
    counts = torch.bincount(chosen, minlength=size).to(rows.dtype)
    sums = torch.zeros(size, rows.shape[1]).index_add_(0, chosen, rows)
    return sums / (counts + _PRIOR)[:, None]


def shrink(parts: Tensor, target: Tensor) -> Tensor:
    """How much each level counts in each dimension, by least squares on unseen rows.

    In sample the largest codebooks look far better than they are: at 4,096 entries of four rows
    each, the training error is a third of the held-out one. So the weights come from rows that
    were left out when their codebooks were learned.

    Args:
        parts: float32 (n, 6, D) of unseen rows. target: float32 (n, D).

    Returns: float32 (6, D); where a dimension says little, the weights of all of them together.
    """
    gram = torch.einsum("nld,nkd->dlk", parts, parts).double()  # (D, 6, 6)
    match = torch.einsum("nld,nd->dl", parts, target).double()  # (D, 6)
    common = torch.linalg.solve(gram.sum(0), match.sum(0))
    identity = torch.eye(gram.shape[1], dtype=torch.float64)
    ridge = 0.3 * gram.diagonal(dim1=1, dim2=2).mean() * identity
    weights: Tensor = torch.linalg.solve(gram + ridge, match + ridge @ common)
    return weights.T.float()
