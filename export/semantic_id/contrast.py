"""How loud the mean, the last scale and faint dimensions are in the decoder, so that neighbours
keep their order.

In: what levels say of rows that they were learned without. Out: a `Contrast`. Least squares damps
what is unsure, L more than S and faint dimensions more than strong ones; the mean is sure, so it
stays, and neighbours look more alike than they are. Order and tasks gain where it is quieter and
the others are louder, at the cost of squared error.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from export.semantic_id.measures import order

_MEANS = (1.0, 0.7, 0.5)
_LASTS = (1.0, 1.2, 1.4)
_TILTS = (0.1, 0.2)
_FAINT = 1e-4  # of the strongest dimension's variance: nothing is louder than this would be


@dataclass(frozen=True, slots=True)
class Contrast:
    """Factors of the mean and of what the two levels of L say; `tilt`, the power of a dimension's
    share of the strongest one's variance that everything said of it is divided by."""

    mean: float = 1.0
    last: float = 1.0
    tilt: float = 0.0

    def weights(self, variance: Tensor) -> Tensor:
        """Factors of what each level says of each dimension: (6, D). variance: (D,)."""
        gain = (variance / variance.max()).clamp(min=_FAINT) ** -self.tilt
        factors = gain.repeat(6, 1)
        factors[-2:] *= self.last
        return factors


def best_contrast(parts: Tensor, target: Tensor, mean: Tensor) -> Contrast:
    """The factors with the best Kendall tau: of nine without tilt, then of some tilts.

    Args:
        parts: float32 (n, 6, D), what each level says of unseen rows, as far as it is trusted.
        target: float32 (n, D), the rows less their mean. mean: (D,). All along the same axes.
    """
    variance = target.square().mean(0)
    rows = (target + mean).numpy()

    def best(tried: Iterable[Contrast], known: Contrast, highest: float) -> tuple[Contrast, float]:
        for each in tried:
            said = (parts * each.weights(variance)).sum(1)
            found = order(rows, F.normalize(each.mean * mean + said, dim=1).numpy())
            if found.get("tau_100", -1.0) > highest:
                known, highest = each, found["tau_100"]
        return known, highest

    flat = (Contrast(middle, loud) for middle in _MEANS for loud in _LASTS)
    found, reached = best(flat, Contrast(), -1.0)
    return best((replace(found, tilt=tilt) for tilt in _TILTS), found, reached)[0]
