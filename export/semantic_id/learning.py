"""Learns a tokenizer: `learn(rows, pairs, previous, plan, step)`.

In: unit rows float32 (n, D) of any D. Out: a `SemanticId` and its report. The steps: a metric from
pairs, where there are any; codebooks level by level; how far to trust each level, on rows that its
codebooks have not seen; a joint tuning through the straight-through estimator, which is kept only
if held-out rows keep their order better; at the end unused entries are given rows, and different
products that share an ID are parted. Rows that are the same are learned from once.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.reference.errors import ReferenceModelError
from export.semantic_id import split
from export.semantic_id.codebooks import Codebook
from export.semantic_id.contrast import Contrast, best_contrast
from export.semantic_id.inputs import check
from export.semantic_id.levels import Levels, Recipe, learn_levels, shrink
from export.semantic_id.measures import (
    in_batches,
    nearest_items,
    order,
    relative_error,
    usage,
)
from export.semantic_id.metric import basis, learn_metric, lens, see_through
from export.semantic_id.model import CARRY, LATENT, NAMES, SIZES, SemanticId
from export.semantic_id.parting import separate, wake
from export.semantic_id.search import on_grid
from export.semantic_id.stability import churn, moved
from export.semantic_id.tuning import Tuning, tune

Rows = NDArray[np.float32]
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a tokenizer is learned.

    Attributes:
        seed: of the split, the starts and the reseeding.
        held_out: share of the groups of rows that only measure.
        sizes: entries of S, M and L, centre and residual: six numbers.
        latent: dimensions that codes are searched in.
        unseen: share of the training rows that a second set of codebooks is learned without, to
            find out how far each level may be trusted.
        metric_steps, metric_hold: of learning from pairs, and how strongly towards no change.
        moving: share of the rows whose entries, at each level, may leave a previous tokenizer's.
        tuning: of the joint tuning.
    """

    seed: int = 7
    held_out: float = 0.05
    sizes: tuple[int, ...] = SIZES
    latent: int = LATENT
    unseen: float = 0.33
    metric_steps: int = 200
    metric_hold: float = 1.0
    moving: float = 0.002
    tuning: Tuning = field(default_factory=Tuning)

    @property
    def steps(self) -> int:
        """How often `learn` calls `step`."""
        return 2 * len(NAMES) + self.tuning.rounds + 1


def learn(
    rows: Rows,
    pairs: NDArray[np.int64] | None,
    previous: SemanticId | None,
    plan: Plan,
    step: Step,
) -> tuple[SemanticId, dict[str, object]]:
    """Learns the tokenizer.

    Args:
        rows: unit rows float32 (n, D).
        pairs: int64 (m, 3) row, row, 1 if the same product else 0; or None.
        previous: keep to its latent and its codebooks, so that codes stay what they were. Its
            metric stays too: pairs then only keep products on one side of the split.
        step: told after every part, `plan.steps` times.

    Returns: the tokenizer and its report (JSON values).
    Raises: `ReferenceModelError` when there are too few rows for the largest codebook, when rows or
        pairs are not as above, or when `previous` has another D or other sizes.
    """
    check(rows, pairs, plan.sizes)
    rows, pairs = split.distinct(rows, pairs)
    group = split.groups(len(rows), pairs)
    held = split.share(group, plan.held_out, plan.seed)
    x = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
    generator = torch.Generator().manual_seed(plan.seed)
    model = _space(x, held, pairs, previous, plan, generator)
    train = torch.from_numpy(~held)
    latent, target, axes = _view(model, x, x[train])
    recipe = Recipe(plan.sizes, int(model.again))
    before = None if previous is None else moved(previous, latent[train], plan.moving)
    levels = learn_levels(latent[train], target[train], recipe, generator, step, before)
    contrast = trust = None
    if previous is not None and lens(model.basis) is None:
        _inherit(model, previous, levels, axes)
        for name in NAMES:
            step(f"{name}: as loud as before")
    else:
        how = recipe, before, plan
        parts, unseen = _unseen_parts(latent, target, group, held, how, step)
        trust = shrink(parts, unseen)
        contrast = Contrast()
        if lens(model.basis) is None:  # a taught metric has other aims than order
            contrast = best_contrast(parts * trust, unseen, model.mean @ axes)
        _fill(model, levels, trust * contrast.weights(unseen.square().mean(0)), axes)
        model.values(0).sub_((1 - contrast.mean) * model.mean)
    held_rows = x[~train]
    tuning = replace(plan.tuning, entries=previous is None)
    curves = tune(model, x[train], held_rows, tuning, generator, step)
    see_through(model)
    report: dict[str, object] = {"pairs": _use(pairs, previous)}
    if previous is None:
        report["asleep"] = wake(model, x)
        if pairs is not None:
            report["shared_ids"] = separate(model, x, group)
            report["asleep"] = wake(model, x)
    report |= _report(model, x[train], held_rows) | curves
    if trust is not None and contrast is not None:
        report |= {"trust": trust.mean(1).tolist(), "contrast": asdict(contrast)}
    if previous is not None:
        report["churn"] = churn(previous, model, x)
    step("measured")
    return model.eval(), report


def _use(pairs: NDArray[np.int64] | None, previous: SemanticId | None) -> str:
    if pairs is None:
        return "none"
    return "taught the metric" if previous is None else "split only: the previous metric stays"


def _space(
    x: Tensor,
    held: NDArray[np.bool_],
    pairs: NDArray[np.int64] | None,
    previous: SemanticId | None,
    plan: Plan,
    generator: torch.Generator,
) -> SemanticId:
    """A model with mean and basis set: the previous one's, or new ones."""
    dimension = x.shape[1]
    if previous is not None:
        if previous.dimension != dimension:
            raise ReferenceModelError(
                f"the previous tokenizer takes {previous.dimension} values a row, these rows have "
                f"{dimension}: learn without it"
            )
        if previous.sizes != plan.sizes or float(previous.carry) != CARRY:
            raise ReferenceModelError(
                f"expected a previous tokenizer of sizes {plan.sizes} and carry {CARRY}, found "
                f"{previous.sizes} and {float(previous.carry)}: learn without it"
            )
        model = SemanticId(previous.sizes, dimension, previous.basis.shape[1])
        model.mean.copy_(previous.mean)
        model.basis.copy_(previous.basis)
        model.again.copy_(previous.again)
        return model
    weight = torch.eye(dimension)
    if pairs is not None:
        known = pairs[~held[pairs[:, 0]] & ~held[pairs[:, 1]]]
        weight = learn_metric(x, known, plan.metric_steps, plan.metric_hold, generator)
    latent = min(plan.latent, dimension)
    model = SemanticId(plan.sizes, dimension, latent)
    mean, projection = basis(x[torch.from_numpy(~held)], weight, latent)
    model.mean.copy_(mean)
    model.basis.copy_(projection)
    if pairs is not None:  # the parting of products suffers where the last level waits
        model.again.fill_(1)
    return model


def _view(model: SemanticId, x: Tensor, train: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (n, d), targets (n, D) along their main axes, and these axes (D, D)."""
    centred = (train - model.mean).double()
    axes = torch.linalg.eigh(centred.T @ centred)[1].flip(1).float()
    return model.latent(x), (x - model.mean) @ axes, axes


def _unseen_parts(
    latent: Tensor,
    target: Tensor,
    group: split.Groups,
    held: NDArray[np.bool_],
    how: tuple[Recipe, tuple[Codebook, ...] | None, Plan],
    step: Step,
) -> tuple[Tensor, Tensor]:
    """What levels say of rows that they were learned without: float32 (n, 6, D), (n, D)."""
    recipe, before, plan = how
    left = split.share(group, plan.unseen, plan.seed + 1)
    out, rest = (torch.from_numpy(side & ~held) for side in (left, ~left))
    generator = torch.Generator().manual_seed(plan.seed + 1)
    levels = learn_levels(latent[rest], target[rest], recipe, generator, step, before)
    return levels.parts(levels.encode(latent[out], recipe.again)), target[out]


def _inherit(model: SemanticId, previous: SemanticId, levels: Levels, axes: Tensor) -> None:
    """Fills the model half-way from the previous tables to new ones, in each dimension as loud.

    Trust cannot be measured anew: the previous codebooks have seen the rows that would be left out.
    """
    for i, (book, value) in enumerate(zip(levels.books, levels.values, strict=True)):
        before = previous.values(i) @ axes
        new, old = value - value.mean(0), before - before.mean(0)
        spread = new.square().sum(0)
        louder = (new * old).sum(0) / spread.clamp(min=1e-6 * float(spread.max()))
        model.keys(i).copy_(on_grid(book.keys))
        model.bias(i).copy_(book.bias)
        model.values(i).copy_(((new * louder + old) / 2 + before.mean(0)) @ axes.T)


def _fill(model: SemanticId, levels: Levels, trust: Tensor, axes: Tensor) -> None:
    for i, (book, value) in enumerate(zip(levels.books, levels.values, strict=True)):
        model.keys(i).copy_(on_grid(book.keys))
        model.bias(i).copy_(book.bias)
        model.values(i).copy_((value * trust[i]) @ axes.T)


def _report(model: SemanticId, train: Tensor, held: Tensor) -> dict[str, object]:
    figures: dict[str, object] = {"rows_train": len(train), "rows_held_out": len(held)}
    codes = []
    for name, rows in (("train", train), ("held_out", held)):
        if not len(rows):
            continue
        found = in_batches(rows, model)
        codes.append(found)
        hat = model.decode(found)
        figures[f"relative_mse_{name}"] = round(relative_error(rows, hat, model.mean), 4)
        figures[f"distinct_ids_{name}"] = round(len(torch.unique(found, dim=0)) / len(found), 4)
        if name == "held_out":
            figures |= order(rows.numpy(), hat.numpy())
            figures["nearest_held_out"] = nearest_items(rows.numpy(), hat.numpy())
    figures["levels"] = usage(torch.cat(codes).numpy(), model.sizes)
    return figures
