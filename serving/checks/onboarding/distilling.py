"""A router taught by the model's own verdicts: a small network that says what the model would.

In: many ads (thousands) with vectors, words and the model's calibrated probabilities. Out: a policy
with a network and a prototype for each category. Verdicts cost no labels: what the model has read
is enough. A sixth of the ads is held out to say where the router is sure.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.checks.onboarding.fitting import Array, sigmoid
from serving.checks.policy_file import CategoryPart, PolicyFile, Prototype
from serving.checks.policy_network import PRESENT, Network
from serving.checks.router import logit

Matrix = NDArray[np.float32]

HIDDEN = 64
SEEN = 5  # times that a word must have been there to be known
HELD_OUT = 6  # one in so many
EPOCHS, BATCH = 60, 128
RATE, DECAY, DROPPED = 2e-3, 1e-2, 0.1
CLIP = 8.0  # log-odds; what is surer than that is sure enough
# Of as many as the model flags in the held-out ads, how many may lie beyond each threshold, and how
# far beyond what is seen there a threshold lies (log-odds).
MISSED, SAFETY = 0.02, 0.5
LEAST_FLAGGED = 4  # in the held-out ads, below which a category is not routed


@dataclass(frozen=True, slots=True)
class Verdicts:
    """n ads: vectors (n, D), words, and probabilities (n, C) by category as the model gave them."""

    vectors: Matrix
    words: Sequence[frozenset[int]]
    probabilities: Array


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds (C,) of review and block."""

    review: Array
    block: Array


def distil(
    file: PolicyFile, categories: Sequence[str], seen: Verdicts, limits: Limits, encoder: str
) -> PolicyFile:
    """`file` with a router that decides as the model would; the same verdicts give the same."""
    counted = Counter(word for words in seen.words for word in words)
    words = np.array(sorted(w for w, times in counted.items() if times >= SEEN), np.uint32)
    inputs = _inputs(seen, words)
    odds = _odds(seen.probabilities)
    held = np.arange(len(inputs)) % HELD_OUT == HELD_OUT - 1
    first, bias, heads, offsets = _fit(inputs[~held], odds[~held] - _odds(limits.review))
    network = Network.of(words, first, bias)
    hidden = np.stack(
        [network(v, w) for v, w, h in zip(seen.vectors, seen.words, held, strict=True) if h]
    )
    parts = dict(file.risk or {})
    for at, name in enumerate(categories):
        weights = heads[:, at].astype(np.float16).astype(np.float32)
        offset = float(offsets[at]) + float(_odds(limits.review[at]))
        said, truth = hidden @ weights + offset, seen.probabilities[held, at]
        edges = _edges(said, truth >= limits.review[at], truth >= limits.block[at])
        router = None
        if edges is not None:
            low, high = sigmoid(np.array([edges[0], max(edges[1], float(_odds(limits.block[at])))]))
            router = Prototype(
                encoder=encoder,
                below=round(float(low), 6),
                above=round(float(high), 6),
                weights=Prototype.encode(weights),
                bias=round(offset, 5),
            )
        parts[name] = parts.get(name, CategoryPart()).model_copy(update={"router": router})
    changed = {"risk": parts, "network": network}
    return PolicyFile.model_validate(file.model_copy(update=changed).model_dump())


def _inputs(seen: Verdicts, words: NDArray[np.uint32]) -> Matrix:
    place = {int(word): row for row, word in enumerate(words)}
    there = np.zeros((len(seen.words), len(words)), np.float32)
    for row, several in enumerate(seen.words):
        there[row, [place[word] for word in several if word in place]] = PRESENT
    return np.hstack([seen.vectors, there])


def _odds(p: Array) -> Array:
    found: Array = np.vectorize(logit, otypes=[float])(p)
    return found


def _edges(said: Matrix, flagged: NDArray[np.bool_], blocked: NDArray[np.bool_]) -> Array | None:
    """Log-odds below which nothing is flagged and above which all is blocked; None: too few."""
    if flagged.sum() < LEAST_FLAGGED or blocked.all():
        return None
    missed = int(MISSED * flagged.sum())
    yes, no = np.sort(said[flagged]), np.sort(said[~blocked])
    found = float(yes[missed]) - SAFETY, float(no[-1 - min(missed, len(no) - 1)]) + SAFETY
    return np.array([min(found), max(found)])


def _fit(inputs: Matrix, odds: Array) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Weights (N, H), bias (H,), heads (H, C), their bias (C,); cross entropy to soft targets.

    AdamW (arXiv:1711.05101) with a rate that rises and falls once (arXiv:1708.07120).
    """
    draw = np.random.default_rng(0)
    spread = float(inputs.std(0).mean())
    x, targets = inputs / spread, sigmoid(np.clip(odds, -CLIP, CLIP)).astype(np.float32)
    sizes = ((x.shape[1], HIDDEN), (HIDDEN,), (HIDDEN, targets.shape[1]), (targets.shape[1],))
    values = [
        (draw.uniform(-1, 1, size) / np.sqrt(sizes[at - at % 2][0])).astype(np.float32)
        for at, size in enumerate(sizes)
    ]
    means = [np.zeros_like(value) for value in values]
    squares = [np.zeros_like(value) for value in values]
    steps, step = EPOCHS * -(-len(x) // BATCH), 0
    for _ in range(EPOCHS):
        order = draw.permutation(len(x))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            step += 1
            rate = RATE * min(step / (0.3 * steps), 1.0, (steps - step + 1) / (0.7 * steps))
            gradients = _gradients(values, x[rows], targets[rows], draw)
            for value, mean, square, gradient in zip(
                values, means, squares, gradients, strict=True
            ):
                mean += 0.1 * (gradient - mean)
                square += 0.001 * (gradient * gradient - square)
                ahead, spread_ = mean / (1 - 0.9**step), square / (1 - 0.999**step)
                value -= rate * (ahead / (np.sqrt(spread_) + 1e-8) + DECAY * value)
    values[0] /= spread
    return values[0], values[1], values[2], values[3]


def _gradients(
    values: Sequence[Matrix], x: Matrix, targets: Matrix, draw: np.random.Generator
) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    kept = (draw.random((len(x), HIDDEN)) >= DROPPED).astype(np.float32) / np.float32(1 - DROPPED)
    before = x @ values[0] + values[1]
    hidden = np.maximum(before, 0) * kept
    off = (sigmoid((hidden @ values[2] + values[3]).astype(float)) - targets).astype(np.float32)
    off /= np.float32(off.size)
    back = (off @ values[2].T) * kept * (before > 0)
    return x.T @ back, back.sum(0), hidden.T @ off, off.sum(0)
