"""Codes to sparse feature ids for ranking models, the same in training and serving.

In: codes (n, 6). Out: uint64 ids, one column per feature. For each scale (S, M, L) with centre c
and residual r: the unigram c and the bigram (c, r); on request the prefixes of 3 to 6 codes.
docs/wire_format.md gives the bytes that are hashed and test vectors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .record import CODES, NO_CODE

NO_FEATURE = 0  # of rows without codes; also the id that models keep for padding
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Template:
    """A feature: which codes it is made of, and the number that keeps it apart from others."""

    name: str
    number: int
    columns: tuple[int, ...]


TEMPLATES = (
    Template("s_c", 1, (0,)),
    Template("s_cr", 2, (0, 1)),
    Template("m_c", 3, (2,)),
    Template("m_cr", 4, (2, 3)),
    Template("l_c", 5, (4,)),
    Template("l_cr", 6, (4, 5)),
)
PREFIXES = tuple(Template(f"prefix_{n}", 4 + n, tuple(range(n))) for n in range(3, CODES + 1))


def feature_ids(
    codes: NDArray[np.uint16], buckets: int = 0, prefixes: bool = False
) -> NDArray[np.uint64]:
    """Codes (n, 6) -> ids uint64 (n, 6), or (n, 10) with prefixes.

    `buckets` 0 gives 64-bit ids; otherwise ids are 1..buckets (0 stays free for rows without
    codes). The hash is SplitMix64's finalizer (Steele, Lea, Flood 2014) applied code by code.
    Raises InputError.
    """
    array = np.asarray(codes)
    if array.ndim != 2 or array.shape[1] != CODES or array.dtype.kind not in "iu":
        raise InputError(
            f"codes must be integers of shape (n, {CODES}); found {array.dtype} {array.shape}"
        )
    if not 0 <= buckets < 1 << 63:
        raise InputError(f"buckets must be 0 or more; found {buckets}")
    templates = TEMPLATES + PREFIXES if prefixes else TEMPLATES
    columns = [_hashed(array, template) for template in templates]
    ids = np.stack(columns, axis=1)
    if buckets:
        ids = ids % np.uint64(buckets) + np.uint64(1)
    ids[(array == NO_CODE).any(axis=1)] = NO_FEATURE
    return ids


def _hashed(codes: NDArray[np.integer], template: Template) -> NDArray[np.uint64]:
    state = np.full(len(codes), template.number, np.uint64)
    for column in template.columns:
        state = _mix(state * _MULTIPLIER + codes[:, column].astype(np.uint64) + np.uint64(1))
    return state


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))
