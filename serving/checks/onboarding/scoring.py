"""How good probabilities are: area under precision and recall, and calibration error.

In: probabilities and labels (n,). Out: numbers, as they are commonly defined; of few labels they
say little, so each is shown beside how many there were.
"""

import numpy as np
from numpy.typing import NDArray

from serving.checks.onboarding.fitting import Array, Labels

BINS = 15
ROWS_A_BIN = 8  # at least; fewer rows make fewer bins


def average_precision(scores: Array, labels: Labels) -> float | None:
    """Area under the precision-recall curve as a sum of steps; None without a positive.

    Rows of one score count as one step, so that their order does not matter.
    """
    if not labels.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    last: NDArray[np.bool_] = np.append(ranked[1:] != ranked[:-1], True)
    found = hits[last]
    precision = found / (np.flatnonzero(last) + 1)
    gained = np.diff(found, prepend=0)
    return float((precision * gained).sum() / labels.sum())


def calibration_error(probabilities: Array, labels: Labels, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal mass (Nixon et al. 2019)."""
    bins = max(1, min(bins, len(labels) // ROWS_A_BIN))
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, bins)
    gaps = [abs(probabilities[rows].mean() - labels[rows].mean()) * len(rows) for rows in parts]
    return float(sum(gaps) / len(labels))
