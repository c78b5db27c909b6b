"""Staying with a previous tokenizer: codes are keys of stored records and of rankers' weights."""

import torch
from torch import Tensor

from export.semantic_id.codebooks import Codebook, means
from export.semantic_id.levels import codes_of, missing
from export.semantic_id.measures import in_batches
from export.semantic_id.model import CARRY, NAMES, SemanticId
from export.semantic_id.search import on_grid


def moved(previous: SemanticId, latent: Tensor, share: float) -> tuple[Codebook, ...]:
    """Its codebooks, of which only the entries that their rows have left behind follow them.

    The others stay exactly where they are, and so do the codes of rows that meet none that moved.

    Args:
        latent: float32 (n, d) in the previous tokenizer's own projection.
        share: of the rows at each level, how many may belong to entries that move. Those go first
            that the squared error gains most by, for each of their rows.
    """
    books: list[Codebook] = []
    carried = torch.zeros_like(latent)
    residual = latent
    for level in range(len(NAMES)):
        if level % 2 == 0:
            residual = latent - CARRY * carried
        if level == len(NAMES) - 1 and previous.again > 1:
            known = codes_of(books, latent, 1)
            residual = missing(latent, known, [book.keys for book in books])
        book = Codebook(previous.keys(level).clone(), previous.bias(level).clone())
        chosen = book.choose(residual)
        wanted = means(residual, chosen, book.keys)
        drift = (wanted - book.keys).square().sum(1)
        counts = torch.bincount(chosen, minlength=len(book.keys))
        order = torch.argsort(drift, descending=True, stable=True)
        follow = order[(counts[order].cumsum(0) <= share * len(latent)) & (counts[order] > 1)]
        book.keys[follow] = on_grid(wanted[follow])
        books.append(book)
        chosen = book.choose(residual)
        residual, carried = residual - book.keys[chosen], carried + book.keys[chosen]
    return tuple(books)


def churn(previous: SemanticId, model: SemanticId, rows: Tensor) -> dict[str, float]:
    """Share of rows (n, D) whose first code, and whose ID, is another than before."""
    changed = in_batches(rows, previous) != in_batches(rows, model)
    return {
        "first_code": round(float(changed[:, 0].float().mean()), 5),
        "full_id": round(float(changed.any(1).float().mean()), 5),
    }
