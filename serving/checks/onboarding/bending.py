"""The calibration of the model's log-odds: Platt's line, and bends where labels are many.

In: log-odds and labels. Out: a `Curve`. Whether it bends, and at how many places, is decided by the
cross-validated log loss of the labels that it is fitted to, so that no other label is needed.
"""

from dataclasses import dataclass

import numpy as np

from serving.checks.bends import Bends
from serving.checks.onboarding import fitting
from serving.checks.onboarding.fitting import Array, Labels, Line

MANY = 512  # labels from which on it may bend
PLACES = (4, 8, 16)
STIFF = 1.0  # log-odds: standard deviation of a bend before any label is seen
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Curve:
    """A line, and what is added to it at places (see `serving.checks.bends.Bent`)."""

    line: Line
    bends: Bends = ()

    def __call__(self, x: Array) -> Array:
        if not self.bends:
            return self.line(x)
        places, added = zip(*self.bends, strict=True)
        found: Array = self.line(x) + np.interp(x, places, added)
        return found


def calibrate(x: Array, labels: Labels, prior: Line) -> Curve:
    """The curve of the least cross-validated loss; fewer than MANY labels: Platt's line."""
    straight = Curve(fitting.calibrate(x, labels, prior))
    if len(labels) < MANY or not 0 < labels.sum() < len(labels):
        return straight

    def loss(places: int) -> float:
        def fit(seen: Array, said: Labels) -> Curve:
            return _bent(seen, said, fitting.calibrate(seen, said, prior), places)

        return fitting.log_loss(fitting.held_out(x, labels, fit), labels)

    best = min((0, *PLACES), key=loss)
    return _bent(x, labels, straight.line, best)


def _bent(x: Array, labels: Labels, line: Line, places: int) -> Curve:
    """Bends at quantiles of x, each likely to be small, and a curve that never falls."""
    shares = (np.arange(places) + 0.5) / max(1, places)
    at = np.unique(np.round(np.quantile(x, shares), DIGITS))
    if len(at) < 2:
        return Curve(line)
    rows = np.stack([np.interp(x, at, one) for one in np.eye(len(at))], 1)
    precision = np.full(len(at), STIFF**-2)
    added = fitting.newton(rows, labels.astype(float), np.zeros(len(at)), precision, line(x))
    straight = line(at)
    risen = np.maximum.accumulate(straight + added) - straight
    pairs = zip(at.tolist(), np.round(risen, DIGITS).tolist(), strict=True)
    return Curve(line, tuple(pairs))
