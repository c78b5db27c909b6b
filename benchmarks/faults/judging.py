"""Verdicts about waits: a p99 where there are enough of them, the worst of few.

In: waits in milliseconds (n,). Out: for the JSON line, value, bar, verdict and n.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import stats

ENOUGH = 20_000  # of which a p99 means something


def p99(waits_ms: NDArray[np.float64], bar_ms: float, enough: int = ENOUGH) -> dict[str, Any]:
    """The p99 with its interval; "inconclusive" of fewer than `enough`."""
    found = stats.quantile(waits_ms, 0.99).judged(bar_ms)
    if len(waits_ms) < enough:
        found["verdict"] = "inconclusive"
    return found | {"n": len(waits_ms), **_shape(waits_ms)}


def worst(waits_ms: NDArray[np.float64], bar_ms: float) -> dict[str, Any]:
    """The longest: a promise about every single one."""
    value = float(waits_ms.max())
    verdict = "met" if value <= bar_ms else "not met"
    return {"value": value, "bar": bar_ms, "verdict": verdict, "n": len(waits_ms)} | _shape(
        waits_ms
    )


def none(count: int, of: int) -> dict[str, Any]:
    """Something that must never happen."""
    return {"value": count, "bar": 0, "verdict": "met" if count == 0 else "not met", "n": of}


def _shape(waits_ms: NDArray[np.float64]) -> dict[str, float]:
    return {"p50_ms": float(np.median(waits_ms)), "worst_ms": float(waits_ms.max())}
