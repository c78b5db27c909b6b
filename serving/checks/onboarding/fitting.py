"""Logistic fits on few labels, held in by a prior, and predictions that did not see their own row.

In: numbers float64 and labels bool. Out: calibrations, probes and cross-validated log-odds. Nothing
is drawn at random: the same labels give the same fit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.bool_]

STEPS = 50
TOLERANCE = 1e-9
LEAST_SCALE, MOST_SCALE = 0.05, 50.0
ONE_OUT = 64  # up to so many rows each is left out alone; beyond, in FOLDS parts
FOLDS = 10
MANY = 1_024  # rows from which on FEW_FOLDS parts will do, one of them to choose the penalty
FEW_FOLDS = 5
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True, slots=True)
class Line:
    """log-odds = scale * x + bias."""

    scale: float
    bias: float

    def __call__(self, x: Array) -> Array:
        return self.scale * x + self.bias


@dataclass(frozen=True, slots=True)
class Plane:
    """log-odds = V @ weights + bias, for rows of V (n, D)."""

    weights: Array
    bias: float

    def __call__(self, rows: Array) -> Array:
        found: Array = rows @ self.weights + self.bias
        return found


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    found: Array = 0.5 * (1 + np.tanh(0.5 * x))
    return found


def calibrate(x: Array, labels: Labels, prior: Line) -> Line:
    """Platt scaling (Platt 1999) with his smoothed targets, shrunk towards `prior`.

    The prior counts as a normal one: its scale within half of itself, its bias within 2.
    """
    positive = int(labels.sum())
    negative = len(labels) - positive
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    rows = np.stack([x, np.ones_like(x)], 1)
    centre = np.array([prior.scale, prior.bias])
    precision = np.array([1 / (0.5 * prior.scale) ** 2, 1 / 2.0**2])
    scale, bias = newton(rows, targets, centre, precision)
    return Line(float(np.clip(scale, LEAST_SCALE, MOST_SCALE)), float(bias))


def probe(rows: Array, labels: Labels, penalty: float) -> Plane:
    """Logistic regression on rows (n, D) with an L2 penalty on the weights, not on the bias."""
    places = np.column_stack([rows, np.ones(len(rows))])
    precision = np.full(places.shape[1], penalty)
    precision[-1] = 1e-6
    found = newton(places, labels.astype(float), np.zeros(places.shape[1]), precision)
    return Plane(found[:-1], float(found[-1]))


def best_probe(rows: Array, labels: Labels) -> tuple[Plane, Array]:
    """The probe of the penalty with the least cross-validated loss, and its held-out log-odds."""
    # Turned into the span of the rows, which changes no fit: n numbers a row where n is below D.
    left, sizes, right = np.linalg.svd(rows, full_matrices=False)
    turned = left * sizes

    def held(penalty: float) -> Array:
        return held_out(turned, labels, lambda r, y: probe(r, y, penalty))

    if len(labels) <= MANY:
        tried = [(log_loss(odds, labels), p, odds) for p in PENALTIES for odds in (held(p),)]
        _, penalty, odds = min(tried, key=lambda one: one[0])
    else:
        out = next(folds(labels))

        def loss(penalty: float) -> float:
            seen = probe(turned[~out], labels[~out], penalty)
            return log_loss(seen(turned[out]), labels[out])

        penalty = min(PENALTIES, key=loss)
        odds = held(penalty)
    found = probe(turned, labels, penalty)
    return Plane(right.T @ found.weights, found.bias), odds


def held_out(
    rows: Array, labels: Labels, fit: Callable[[Array, Labels], Callable[[Array], Array]]
) -> Array:
    """Log-odds (n,) of each row by a fit that has not seen it."""
    odds = np.zeros(len(labels))
    for out in folds(labels):
        odds[out] = fit(rows[~out], labels[~out])(rows[out])
    return odds


def folds(labels: Labels) -> Iterator[Labels]:
    """Masks of what is left out: single rows, or parts with both labels spread evenly."""
    count = len(labels)
    if count <= ONE_OUT:
        for row in range(count):
            yield np.arange(count) == row
        return
    place, parts = np.empty(count, int), FOLDS if count <= MANY else FEW_FOLDS
    for label in (False, True):
        rows = np.flatnonzero(labels == label)
        place[rows] = np.arange(len(rows)) % parts
    for fold in range(parts):
        yield place == fold


def log_loss(odds: Array, labels: Labels) -> float:
    """Mean negative log-likelihood of log-odds."""
    return float(np.logaddexp(0, np.where(labels, -odds, odds)).mean())


def newton(
    rows: Array, targets: Array, centre: Array, precision: Array, offset: Array | float = 0.0
) -> Array:
    """The most probable weights under a normal prior, by damped Newton steps.

    Log-odds are rows (n, D) @ weights + offset (n,); targets (n,) in 0..1; the prior has its
    `centre` (D,) and `precision` (D,).
    """

    def loss(weights: Array) -> float:
        odds = rows @ weights + offset
        fit = np.logaddexp(0, odds) - targets * odds
        return float(fit.sum() + 0.5 * (precision * (weights - centre) ** 2).sum())

    weights, before = centre.copy(), loss(centre)
    for _ in range(STEPS):
        p = sigmoid(rows @ weights + offset)
        gradient = rows.T @ (p - targets) + precision * (weights - centre)
        curvature = (rows.T * (p * (1 - p))) @ rows + np.diag(precision)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while (now := loss(weights - size * step)) > before and size > 1e-6:
            size /= 2
        weights = weights - size * step
        if before - now < TOLERANCE:
            break
        before = now
    return weights
