"""How loud the mean and the last scale are in the decoder, so that neighbours keep their order.

In: what levels say of rows that they were learned without. Out: a `Contrast`. Least squares damps
what is unsure, and L more than S; the mean is sure, so it stays, and neighbours look more alike
than they are. Order and tasks gain where it is quieter and L louder, at the cost of squared error.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from export.semantic_id.measures import order

_MEANS = (1.0, 0.7, 0.5)
_LASTS = (1.0, 1.2, 1.4)


@dataclass(frozen=True, slots=True)
class Contrast:
    """Factors of the mean and of what the two levels of L say."""

    mean: float = 1.0
    last: float = 1.0

    def trust(self, trust: Tensor) -> Tensor:
        """`shrink`'s weights (6, D), those of L times its factor."""
        louder = trust.clone()
        louder[-2:] *= self.last
        return louder


def best_contrast(parts: Tensor, target: Tensor, mean: Tensor) -> Contrast:
    """The factors with the best Kendall tau, of nine.

    Args:
        parts: float32 (n, 6, D), what each level says of unseen rows, as far as it is trusted.
        target: float32 (n, D), the rows less their mean. mean: (D,). All along the same axes.
    """
    rows = (target + mean).numpy()
    before, last = parts[:, :-2].sum(1), parts[:, -2:].sum(1)
    best, highest = Contrast(), -1.0
    for tried in (Contrast(middle, loud) for middle in _MEANS for loud in _LASTS):
        hat = F.normalize(tried.mean * mean + before + tried.last * last, dim=1)
        found = order(rows, hat.numpy()).get("tau_100", -1.0)
        if found > highest:
            best, highest = tried, found
    return best
