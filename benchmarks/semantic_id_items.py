"""The items that semantic IDs are judged on: read, cut down to scale, and split by product.

In: embeddings (.npy), a JSON line an item, labelled pairs (.npy). Out: `Items`. Rows that a pair or
their own product ties together are always on one side of the split.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.reference.runs import load_pairs
from export.reference.vectors import load_rows
from export.semantic_id.split import groups, share

from .errors import BenchmarkError

_HELD_OUT = 0.2
_FEWEST = 50  # held-out rows: fewer have no neighbourhoods to compare


@dataclass(frozen=True, slots=True)
class Items:
    """What is known of n items.

    Attributes:
        rows: unit rows float32 (n, D).
        product, title: int64 (n,), equal where the name is. category: the same, -1 if unknown.
        pairs: int64 (m, 3): row, row, 1 if the same product.
        group: int64 (n,): rows that must stay on one side of a split.
        held: bool (n,), true for rows of held-out products.
    """

    rows: NDArray[np.float32]
    product: NDArray[np.int64]
    category: NDArray[np.int64]
    title: NDArray[np.int64]
    pairs: NDArray[np.int64]
    group: NDArray[np.int64]
    held: NDArray[np.bool_]

    @property
    def train(self) -> NDArray[np.float32]:
        """Rows that may be learned from."""
        return self.rows[~self.held]

    @property
    def train_pairs(self) -> NDArray[np.int64]:
        """Pairs of which both rows may be learned from, numbered as in `train`."""
        return _among(self.pairs, ~self.held)


def read(embeddings: Path, items: Path, pairs: Path, scale: float, seed: int) -> Items:
    """Read, keep about `scale` of the products, hold out a fifth of these.

    Raises: BenchmarkError when a file is not what it should be, or too little is left.
    """
    try:
        rows = load_rows(embeddings)
        labelled = load_pairs(pairs, len(rows))
        # Not splitlines(): titles may hold other line breaks than the file's own.
        lines = items.read_text(encoding="utf-8").rstrip("\n").split("\n")
        named = [_names(json.loads(line)) for line in lines]
    except ExportError as error:
        raise BenchmarkError(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(
            f'{items}: expected {{"title", "product", "category", ...}} a line: {error!r}'
        ) from error
    if len(named) != len(rows):
        raise BenchmarkError(
            f"{items}: expected a line for each of {len(rows)} embeddings, found {len(named)}"
        )
    product, category, title = (
        np.unique([each[i] for each in named], return_inverse=True)[1] for i in range(3)
    )
    category = np.where(np.array([bool(each[1]) for each in named]), category, -1)
    group = _groups(product, labelled)
    if scale < 1:
        kept = share(group, scale, seed + 1)
        rows, product, category, title = rows[kept], product[kept], category[kept], title[kept]
        labelled = _among(labelled, kept)
        group = np.unique(group[kept], return_inverse=True)[1]
    held = share(group, _HELD_OUT, seed)
    if held.sum() < _FEWEST:
        raise BenchmarkError(
            f"expected at least {_FEWEST} rows of held-out products, found {held.sum()} of "
            f"{len(rows)}: add items, or raise --scale"
        )
    return Items(rows, product, category, title, labelled, group, held)


def _names(line: dict[str, object]) -> tuple[str, str, str]:
    product = f"{line.get('source', '')}/{line['product']}"
    return product, str(line["category"] or ""), str(line["title"])


def _groups(product: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The group of each row: rows of one product are tied, and those that a pair calls the same."""
    first = np.unique(product, return_index=True)[1][product]
    same = np.stack([np.arange(len(product)), first, np.ones_like(first)], 1)
    return groups(len(product), np.concatenate([pairs, same]))


def _among(pairs: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pairs of which both rows are kept, numbered among the kept ones."""
    place = np.cumsum(kept) - 1
    left, right, label = pairs[kept[pairs[:, 0]] & kept[pairs[:, 1]]].T
    among: NDArray[np.int64] = np.stack([place[left], place[right], label], 1)
    return among
