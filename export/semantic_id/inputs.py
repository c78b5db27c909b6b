"""Refuses what nothing can be learned from, before minutes are spent on it."""

import numpy as np
from numpy.typing import NDArray

from export.reference.errors import ReferenceModelError
from export.semantic_id.model import NAMES

_LOOSE = 1e-2  # fp16 rows, read back, are unit within this


def check(
    rows: NDArray[np.float32], pairs: NDArray[np.int64] | None, sizes: tuple[int, ...]
) -> None:
    """What `learn` is given: unit rows float32 (n, D), pairs int64 (m, 3), sizes of six levels.

    Raises: `ReferenceModelError` when it is anything else, or fewer than four rows an entry.
    """
    if len(sizes) != len(NAMES) or min(sizes) < 2:
        raise ReferenceModelError(f"expected {len(NAMES)} sizes of 2 or more, found {sizes}")
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise ReferenceModelError(
            f"expected rows float32 (n, D), found {rows.dtype} {rows.shape}: convert them"
        )
    needed = 4 * max(sizes)
    if len(rows) < needed:
        raise ReferenceModelError(
            f"expected at least {needed} rows to learn from ({max(sizes)} entries, 4 rows "
            f"each), found {len(rows)}; add embeddings, or make the codebooks smaller"
        )
    wrong = np.flatnonzero(~(np.abs(np.linalg.norm(rows, axis=1) - 1) < _LOOSE))
    if len(wrong):
        raise ReferenceModelError(
            f"expected unit rows, found {len(wrong)} that are not, the first at {wrong[0]}: "
            "normalise them, and embed again what is not finite"
        )
    if pairs is None:
        return
    if pairs.ndim != 2 or pairs.shape[1] != 3 or pairs.dtype != np.int64:
        raise ReferenceModelError(
            f"expected pairs int64 (m, 3), found {pairs.dtype} {pairs.shape}: convert them"
        )
    if len(pairs) and not (pairs[:, :2].min() >= 0 and pairs[:, :2].max() < len(rows)):
        raise ReferenceModelError(
            f"expected pairs of rows 0..{len(rows) - 1}, found "
            f"{pairs[:, :2].min()}..{pairs[:, :2].max()}"
        )
    if not np.isin(pairs[:, 2], (0, 1)).all():
        raise ReferenceModelError(
            f"expected labels 0 and 1 in pairs, found {np.unique(pairs[:, 2])[:5].tolist()}"
        )
