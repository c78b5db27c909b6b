"""Calibration that bends: a line through the model's log-odds, corrected where labels say so.

In: log p(yes) - log p(no) as the model gives it. Out: the log-odds of a calibrated probability. A
line has two numbers, which a few dozen labels can hold; thousands can say where it is off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from export.checks import Affine

Bends = tuple[tuple[float, float], ...]
FLAT = 1e-3  # log-odds that a curve may fall by rounding


@dataclass(frozen=True, slots=True)
class Bent(Affine):
    """scale * x + bias + what is to be added there.

    bends: (x, log-odds to add), x ascending; between two of them as the line through both, beyond
    the last as much as there. None: the line alone.
    """

    bends: Bends = ()


def log_odds(affine: Affine, x: float) -> float:
    """Calibrated log-odds of the model's `x`."""
    line = affine.scale * x + affine.bias
    if isinstance(affine, Bent) and affine.bends:
        places, added = zip(*affine.bends, strict=True)
        line += float(np.interp(x, places, added))
    return line


def rises(scale: float, bends: Sequence[tuple[float, float]]) -> bool:
    """Whether places ascend and the curve nowhere falls: a surer model is never less probable."""
    return all(
        right[0] > left[0] and scale * (right[0] - left[0]) + right[1] - left[1] >= -FLAT
        for left, right in pairwise(bends)
    )
