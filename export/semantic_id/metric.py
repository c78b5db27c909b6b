"""The space that codes are searched in: principal components, under a metric that pairs may teach.

In: unit rows float32 (n, D), and labelled pairs or none. Out: mean (D,) and basis (D, latent), and
decoded features in which what pairs taught shows.
The metric is linear, x -> x W with W near the identity, learned so that cosine similarity tells the
same product from a hard negative: a linear map keeps the encoder exact and costs nothing.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from export.semantic_id.model import NAMES, SemanticId

_BATCH = 512  # pairs of each label a step
_SHARE = 0.7  # how much of the decoder's output is seen by a taught metric: decision 0037
_EVEN = 0.99  # shortest axis of a basis that nobody has taught


def basis(rows: Tensor, weight: Tensor, latent: int) -> tuple[Tensor, Tensor]:
    """Mean (D,), and the main axes of the weighted rows: float32 (D, latent), norm at most 1."""
    mean = rows.mean(0)
    centred = ((rows - mean) @ weight).double()
    axes = torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, :latent]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    projection = weight.double() @ axes
    scale = torch.linalg.matrix_norm(projection, 2).clamp(min=1)
    return mean, (projection / scale).float()


def lens(basis: Tensor) -> Tensor | None:
    """What a taught metric makes of features less their mean: symmetric, float32 (D, D).

    The basis (D, latent) shortens the axes that tell nothing of products. The decoder's output is
    seen so too, for a share of .7; the rest is as it was. None where no pairs taught the basis.
    """
    axes, length, _ = torch.linalg.svd(basis.double(), full_matrices=False)
    if float(length.min()) > _EVEN:
        return None
    own = torch.eye(len(basis), dtype=torch.float64)
    seen: Tensor = (1 - _SHARE) * own + _SHARE * (axes * length) @ axes.T
    return seen.float()


def see_through(model: SemanticId) -> None:
    """Puts the decoder's tables behind the lens of a taught metric, if there is one.

    The mean is halved where the lens sees: there it tells no product from another.
    """
    seen = lens(model.basis)
    if seen is not None:
        for level in range(len(NAMES)):
            model.values(level).copy_(model.values(level) @ seen)
        model.values(0).sub_(_SHARE / 2 * model.mean)


def learn_metric(
    rows: Tensor, pairs: NDArray[np.int64], steps: int, hold: float, generator: torch.Generator
) -> Tensor:
    """Attracts pairs of the same product and repels the others; float32 (D, D).

    Args:
        rows: unit rows (n, D). pairs: (m, 3) row, row, 1 if the same product.
        hold: how strongly W is held at the identity.
    """
    dimension = rows.shape[1]
    start = torch.eye(dimension)
    labelled = torch.from_numpy(pairs)
    sides = [labelled[labelled[:, 2] == label] for label in (1, 0)]
    if not all(len(side) for side in sides):
        return start
    weight = start.clone().requires_grad_()
    line = torch.tensor([10.0, -5.0], requires_grad=True)  # cosine -> log odds
    optimizer = torch.optim.Adam([{"params": [weight], "lr": 1e-3}, {"params": [line], "lr": 0.1}])
    for _ in range(steps):
        drawn = torch.cat(
            [side[torch.randint(len(side), (_BATCH,), generator=generator)] for side in sides]
        )
        left, right = (F.normalize(rows[drawn[:, side]] @ weight, dim=1) for side in (0, 1))
        odds = (left * right).sum(1) * line[0] + line[1]
        loss = F.binary_cross_entropy_with_logits(odds, drawn[:, 2].float())
        loss = loss + hold * (weight - start).square().sum() / dimension
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weight.detach()
