"""What the stream's verdicts are worth beside those of the model, read for every creative.

In: for each creative its weight (checks), cluster, truth, the model's verdict and the one that the
cascade gave. Out: shares with intervals: clusters are drawn anew, since copies share their fate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.checks.policy import Policy
from serving.checks.router import logit
from serving.checks.verdicts import Risk

from ...stats import Interval

DRAWS = 500

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """One row a creative that was checked: n of them, C categories.

    cluster, weight (n,); truth (n, C); full, got (n, C): log-odds above the threshold for review;
    differs (n,): the verdicts are not the same; llm, reused (n,): checks of each kind.
    """

    cluster: NDArray[np.intp]
    truth: Flags
    full: Numbers
    got: Numbers
    differs: Flags
    llm: Numbers
    reused: Numbers

    @property
    def weight(self) -> Numbers:
        return self.llm + self.reused


def joined(several: Sequence[Rows]) -> Rows:
    """The rows of several streams, whose clusters are not each other's."""
    first = np.cumsum([0, *(int(one.cluster.max()) + 1 for one in several)])
    return Rows(
        np.concatenate([one.cluster + at for one, at in zip(several, first, strict=False)]),
        *(
            np.concatenate([getattr(one, field) for one in several])
            for field in ("truth", "full", "got", "differs", "llm", "reused")
        ),
    )


def above(policy: Policy, risks: Sequence[Risk]) -> Numbers:
    """Log-odds (n, C) above each category's threshold for review."""
    limits = [logit(policy.checks.thresholds[name].review) for name in policy.categories]
    said = [[logit(risk.categories[name]) for name in policy.categories] for risk in risks]
    found: Numbers = np.array(said) - np.array(limits)
    return found


def differs(policy: Policy, got: Risk, full: Risk) -> bool:
    """Whether a verdict is not the model's; a copy's `review` stands for the block of another."""
    meant = policy.verdict(got.categories, got.label_mass)
    return full.verdict not in (got.verdict, meant if got.by == "duplicate" else got.verdict)


def share(rows: Rows, counted: Numbers, of: Numbers, seed: int) -> Interval:
    """Sum of `counted` over the sum of `of`; the latter is taken as given."""
    total = float(of.sum())
    return _drawn(rows, lambda times: float((counted * times).sum()) / total, seed)


def recall_kept(rows: Rows, weight: Numbers, seed: int) -> Interval:
    """Recall of true violations over the model's, where both are equally precise."""
    order = np.argsort(-rows.got, axis=None, kind="stable")
    truth, flagged = rows.truth.ravel(), (rows.full >= 0).ravel()
    ranked = truth[order]
    several = rows.truth.shape[1]

    def kept(times: Numbers) -> float:
        each = np.repeat(weight * times, several)
        right = float((each * (truth & flagged)).sum())
        precision = right / max(1e-9, float((each * flagged).sum()))
        taken = each[order]
        hits = np.cumsum(taken * ranked)
        precise = hits >= precision * np.cumsum(taken) - 1e-9
        return float(hits[precise].max(initial=0.0)) / max(1e-9, right)

    return _drawn(rows, kept, seed)


def scores(rows: Rows, said: Numbers, weight: Numbers) -> tuple[float, float]:
    """Precision and recall of what is above the thresholds."""
    each = weight[:, None] * np.ones_like(said)
    flagged = said >= 0
    right = float((each * (flagged & rows.truth)).sum())
    return (
        right / max(1e-9, float((each * flagged).sum())),
        right / max(1e-9, float((each * rows.truth).sum())),
    )


def _drawn(rows: Rows, figure: Callable[[Numbers], float], seed: int) -> Interval:
    _, cluster = np.unique(rows.cluster, return_inverse=True)
    count = int(cluster.max()) + 1
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(DRAWS):
        times = np.bincount(draw.integers(0, count, count), minlength=count)
        found.append(figure(times[cluster].astype(float)))
    low, high = np.quantile(found, [0.005, 0.995])
    return Interval(figure(np.ones(len(cluster))), float(low), float(high))
