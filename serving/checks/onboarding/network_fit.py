"""The fit of a policy's network: a hidden layer that every category shares, in numpy.

In: inputs (n, N) float32 and log-odds (n, C) to come near to. Out: weights of a network and of a
head for each category. Several networks that began apart are laid side by side: their mean errs
less than any of them, and in a policy's file they are one wider network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.checks.onboarding.fitting import Array, sigmoid

Matrix = NDArray[np.float32]

HIDDEN, NETWORKS = 64, 3
EPOCHS, BATCH = 60, 128
RATE, DECAY, DROPPED = 2e-3, 1e-2, 0.1
CLIP = 8.0  # log-odds; what is surer than that is sure enough


@dataclass(frozen=True, slots=True)
class Fitted:
    """relu(x @ first + bias) @ heads + offsets: (N, H), (H,), (H, C), (C,) float32."""

    first: Matrix
    bias: Matrix
    heads: Matrix
    offsets: Matrix


def fit(inputs: Matrix, odds: Array, advance: Callable[[int], None]) -> Fitted:
    """The mean of NETWORKS networks; `advance` is told of each epoch. The same inputs, the same."""
    found = [_one(inputs, odds, seed, advance) for seed in range(NETWORKS)]
    return Fitted(
        np.hstack([one.first for one in found]),
        np.hstack([one.bias for one in found]),
        np.vstack([one.heads for one in found]) / np.float32(NETWORKS),
        np.mean([one.offsets for one in found], 0, dtype=np.float32),
    )


def _one(inputs: Matrix, odds: Array, seed: int, advance: Callable[[int], None]) -> Fitted:
    """Cross entropy to soft targets.

    AdamW (arXiv:1711.05101) with a rate that rises and falls once (arXiv:1708.07120).
    """
    draw = np.random.default_rng(seed)
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
        advance(1)
    values[0] /= spread
    return Fitted(*values)


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
