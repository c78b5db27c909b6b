"""Captions that tell as much as soft tokens do, no more and no less.

In: for each check whether it is answered rightly with soft tokens, and with the true caption cut
after its first k tokens, for every k. Out: cut captions that are right as often. The rule, fixed
before anything was measured: the first k at which cut captions reach the goal, and one token less
for that share of images that makes the mean meet it. It is chosen on the images of one half and
counted on those of the other, both ways round.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Matched:
    """right (n,): by check, with captions that were chosen on other images. tokens (m,): of each
    image's caption. chosen: for either half (most tokens, share of images that get as many)."""

    right: Flags
    tokens: NDArray[np.intp]
    chosen: tuple[tuple[int, float], ...]


def matched(
    soft: Flags,
    cut: Sequence[Flags],
    images: NDArray[np.intp],
    lengths: NDArray[np.intp],
    seed: int,
) -> Matched:
    """cut: (n,) each, by k from 0. images (n,): of each check. lengths (m,): whole captions'."""
    spread = np.random.default_rng(seed).random(len(lengths))
    most = np.zeros(len(lengths), int)
    chosen = []
    for half in (0, 1):
        learned = images % 2 != half
        k, share = _choice(soft[learned].mean(), [one[learned].mean() for one in cut])
        chosen.append((k, round(share, 4)))
        counted = np.arange(len(lengths)) % 2 == half
        most[counted] = np.where(spread[counted] < share, k, k - 1)
    by_k = np.stack(cut)
    right = by_k[most[images], np.arange(len(images))]
    return Matched(right, np.minimum(most, lengths), tuple(chosen))


def _choice(goal: float, accuracies: Sequence[float]) -> tuple[int, float]:
    """k, and the share of images that get k tokens; the others get k - 1."""
    above = [k for k, one in enumerate(accuracies) if k and one >= goal]
    if not above:
        return len(accuracies) - 1, 1.0
    k = above[0]
    before, after = accuracies[k - 1], accuracies[k]
    return k, float(np.clip((goal - before) / max(after - before, 1e-9), 0, 1))
