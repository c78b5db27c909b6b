"""Which rows are held out, and which fold a row is in: whole groups, never single rows.

The same product, seen in training, makes a held-out row look far easier than it is.
"""

import numpy as np
from numpy.typing import NDArray

Groups = NDArray[np.int64]
Pairs = NDArray[np.int64]
Rows = NDArray[np.float32]
_SAME = 1024.0
_RUN = 64  # neighbouring rows that stay together where no labels say more


def groups(count: int, pairs: Pairs | None) -> Groups:
    """The group of each of `count` rows: int64 (count,), numbered from 0.

    Rows that a pair (row, row, 1) calls the same product are in one group; without pairs, runs of
    64 neighbouring rows are, since files keep the views of one item together.
    """
    if pairs is None:
        return np.arange(count) // _RUN
    found: Groups = np.unique(_components(count, pairs[pairs[:, 2] == 1, :2]), return_inverse=True)[
        1
    ]
    return found


def distinct(rows: Rows, pairs: Pairs | None) -> tuple[Rows, Pairs | None]:
    """Rows float32 (n, D) of which no two are the same (within 2^-10 in every dimension), in order.

    Pairs are numbered as before, in rows as they are now. A thousand copies of one advertisement
    would else be a thousand reasons to spend entries on it.
    """
    _, first, place = np.unique(
        np.round(rows * _SAME).astype(np.int16), axis=0, return_index=True, return_inverse=True
    )
    kept = np.sort(first)
    if pairs is not None:
        number = np.searchsorted(kept, first)[place.reshape(-1)]
        pairs = np.stack([number[pairs[:, 0]], number[pairs[:, 1]], pairs[:, 2]], 1)
    return rows[kept], pairs


def share(group: Groups, part: float, seed: int) -> NDArray[np.bool_]:
    """Draws groups with about `part` of the rows: bool, one a row.

    Where labels tie so many rows together that no such draw is possible, runs of neighbouring rows
    are drawn instead.
    """
    sizes = np.bincount(group)
    order = np.random.default_rng(seed).permutation(len(sizes))
    wanted = part * len(group)
    order = order[sizes[order] <= max(wanted / 2, 1)]  # one group must not be all of it
    chosen = order[np.cumsum(sizes[order]) <= wanted]
    drawn: NDArray[np.bool_] = np.isin(group, chosen)
    if drawn.sum() < wanted / 2 and len(group) >= 4 * _RUN and not _are_runs(group):
        return share(np.arange(len(group)) // _RUN, part, seed)
    return drawn


def _are_runs(group: Groups) -> bool:
    return bool(np.array_equal(group, np.arange(len(group)) // _RUN))


def _components(count: int, edges: Pairs) -> Groups:
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
