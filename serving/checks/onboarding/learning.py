"""From evidence and labels to the numbers of a policy: calibration, thresholds, router.

In: the model's log-odds, vectors or cosines, and labels. Out: parts of a policy's file and a report
of held-out figures. With few labels everything stays near what it was before.
"""

from dataclasses import dataclass

import numpy as np

from serving.checks.onboarding import bending, fitting, scoring
from serving.checks.onboarding.fitting import Array, Labels, Line, sigmoid
from serving.checks.policy_file import (
    Calibration,
    CosineRouter,
    ModelCalibration,
    Prototype,
    Thresholds,
)

FEW = 4  # labels of either kind, below which the router learns nothing
SAFETY = 1.0  # log-odds between what was seen on the wrong side and the router's thresholds
MISSED = 0.005  # of as many as a label holds for, rows of either kind that may lie beyond them
LEAST_SURE = 2.2  # log-odds: the router's thresholds are at most 0.1 and at least 0.9
FULL_WEIGHT = 32  # labels at which a threshold lies half-way between before and what fits best
PRECISE = 0.95  # precision that a block should have
COSINE_PRIOR = Line(12.0, -6.0)  # log-odds of a cosine: even at 0.5


@dataclass(frozen=True, slots=True)
class Report:
    """Held-out figures of one question. `model`: its calibrated answer; `router`: what is before.

    decided: share of rows that the router would have decided; wrong: how many of these wrongly.
    """

    question: str
    labels: int
    positive: int
    model_au_prc: float | None
    model_ece: float
    router_au_prc: float | None = None
    router_ece: float | None = None
    decided: float = 0.0
    wrong: int = 0


def written(found: Line) -> Calibration:
    """A line as it stands in a file."""
    return Calibration(scale=round(found.scale, 5), bias=round(found.bias, 5))


def calibration(
    question: str, odds: Array, labels: Labels, prior: Line
) -> tuple[ModelCalibration, Array, Report]:
    """The model's calibration, its held-out probabilities, and the report so far."""
    fit = bending.calibrate(odds, labels, prior)
    held = sigmoid(fitting.held_out(odds, labels, lambda x, y: bending.calibrate(x, y, prior)))
    report = Report(
        question,
        len(labels),
        int(labels.sum()),
        scoring.average_precision(held, labels),
        scoring.calibration_error(held, labels),
    )
    line = written(fit.line).model_dump()
    return ModelCalibration(**line, bends=fit.bends), held, report


def thresholds(held: Array, labels: Labels, before: Thresholds) -> Thresholds:
    """Where reviewing has the best F1, and where blocking is precise; shrunk towards `before`."""
    weight = len(labels) / (len(labels) + FULL_WEIGHT) if 0 < labels.sum() < len(labels) else 0.0
    review = _between(before.review, _best_f1(held, labels), weight)
    block = _between(before.block, _precise(held, labels, before.block), weight)
    return Thresholds(review=review, block=max(review, block))


def prototype(vectors: Array, labels: Labels, encoder: str) -> tuple[Prototype, Array] | None:
    """A linear probe with the router's thresholds, and held-out log-odds; None of too few labels.

    vectors: (n, D), unit rows.
    """
    if _too_few(labels):
        return None
    plane, odds = fitting.best_probe(vectors, labels)
    fit = fitting.calibrate(odds, labels, Line(1.0, 0.0))
    held = fit(odds)
    below, above = band(held, labels)
    found = Prototype(
        encoder=encoder,
        below=below,
        above=above,
        weights=Prototype.encode((fit.scale * plane.weights).astype(np.float32)),
        bias=round(fit.scale * plane.bias + fit.bias, 5),
    )
    return found, held


def cosine_router(
    cosines: Array, labels: Labels, encoder: str
) -> tuple[CosineRouter, Array] | None:
    """The router of relevance, and held-out log-odds; None of too few labels."""
    if _too_few(labels):
        return None
    fit = fitting.calibrate(cosines, labels, COSINE_PRIOR)
    held = fitting.held_out(cosines, labels, lambda x, y: fitting.calibrate(x, y, COSINE_PRIOR))
    below, above = band(held, labels)
    found = CosineRouter(encoder=encoder, below=below, above=above, calibration=written(fit))
    return found, held


def band(held: Array, labels: Labels) -> tuple[float, float]:
    """The router's two thresholds: beyond what was seen on the wrong side, and then some."""
    yes, no = np.sort(held[labels]), np.sort(held[~labels])
    missed = int(MISSED * len(yes))
    below = min(-LEAST_SURE, float(yes[missed]) - SAFETY)
    above = max(LEAST_SURE, float(no[-1 - min(missed, len(no) - 1)]) + SAFETY)
    low, high = sigmoid(np.array([below, above]))
    return round(float(low), 6), round(float(high), 6)


def routed(report: Report, held: Array, labels: Labels, low: float, high: float) -> Report:
    """The report with what a router of these held-out log-odds would have done."""
    p = sigmoid(held)
    yes, no = p >= high, p <= low
    return Report(
        report.question,
        report.labels,
        report.positive,
        report.model_au_prc,
        report.model_ece,
        scoring.average_precision(p, labels),
        scoring.calibration_error(p, labels),
        float((yes | no).mean()),
        int((yes & ~labels).sum() + (no & labels).sum()),
    )


def _too_few(labels: Labels) -> bool:
    return min(int(labels.sum()), int((~labels).sum())) < FEW


def _between(before: float, fits: float, weight: float) -> float:
    """In log-odds, `weight` of the way."""
    low = np.clip(np.array([before, fits]), 1e-4, 1 - 1e-4)
    odds = np.log(low / (1 - low))
    return round(float(sigmoid(odds[:1] + weight * (odds[1:] - odds[:1]))[0]), 4)


def _steps(held: Array) -> Array:
    """Thresholds between neighbouring probabilities."""
    ranked = np.unique(held)
    return (ranked[1:] + ranked[:-1]) / 2 if len(ranked) > 1 else ranked


def _best_f1(held: Array, labels: Labels) -> float:
    def f1(step: float) -> float:
        said = held >= step
        return float(2 * (said & labels).sum() / max(1, said.sum() + labels.sum()))

    return float(max(_steps(held), key=f1))


def _precise(held: Array, labels: Labels, otherwise: float) -> float:
    """The lowest threshold whose precision is PRECISE, one more wrong counted than was seen."""
    for step in _steps(held):
        said = held >= step
        if said.sum() and (said & labels).sum() / (said.sum() + 1) >= PRECISE:
            return float(step)
    return otherwise
