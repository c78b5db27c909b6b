"""Staying with a previous tokenizer: codes are keys of stored records and of rankers' weights."""

import torch
from torch import Tensor

from export.semantic_id.codebooks import Codebook
from export.semantic_id.measures import in_batches
from export.semantic_id.model import CARRY, NAMES, SemanticId, on_grid


def moved(previous: SemanticId, latent: Tensor, weight: float) -> tuple[Codebook, ...]:
    """Its codebooks, each entry pulled towards the mean of the rows that choose it now.

    Args:
        latent: float32 (n, d) in the previous tokenizer's own projection.
        weight: how many rows the previous entry counts for; the larger, the fewer codes change.
    """
    books = []
    carried = torch.zeros_like(latent)
    residual = latent
    for level in range(len(NAMES)):
        if level % 2 == 0:
            residual = latent - CARRY * carried
        old = Codebook(previous.keys(level), previous.bias(level))
        chosen = old.choose(residual)
        counts = torch.bincount(chosen, minlength=len(old.keys)).to(latent.dtype)[:, None]
        sums = torch.zeros_like(old.keys).index_add_(0, chosen, residual)
        book = Codebook(on_grid((weight * old.keys + sums) / (weight + counts)), old.bias)
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
