"""Joint tuning of entries and tables through the straight-through estimator.

In: a filled `SemanticId`, training and held-out rows. Out: the same model, changed in place if
that keeps the order of held-out rows better, else as it was; and the curves.
q = soft + sg(v_i - soft), soft = sum over the 32 most activated of softmax(a / T)_j v_j: entries
that were not chosen get gradient through the soft path, so that none falls asleep.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.semantic_id.measures import in_batches, order
from export.semantic_id.model import CARRY, NAMES, SemanticId
from export.semantic_id.search import on_grid, walk

_TOP = 32
_SOFT = 0.03  # temperature of activations
_SHARP = 0.05  # temperature of cosines in the order loss


@dataclass(frozen=True, slots=True)
class Tuning:
    """rounds x steps of `batch` rows; rate: Adam's; the weights of the losses beside the squared
    error; patience: rounds without a better held-out order before it ends; entries: whether they
    may move, or only the tables."""

    rounds: int = 4
    steps: int = 20
    batch: int = 512
    rate: float = 2e-5
    order: float = 0.1
    commitment: float = 0.25
    patience: int = 2
    entries: bool = True


def tune(
    model: SemanticId,
    train: Tensor,
    held: Tensor,
    plan: Tuning,
    generator: torch.Generator,
    step: Callable[[str], None],
) -> dict[str, object]:
    """Tunes; see the module. `step` is told `plan.rounds` times.

    Returns: `tuning`, one entry a round: loss, held-out tau and relative error, kept or not.
    """
    best = {name: value.clone() for name, value in model.state_dict().items()}
    highest = start = _held_order(model, held)
    curve: list[dict[str, float | bool]] = [{"held_tau_100": start, "kept": True}]
    trained = nn.ParameterDict({name: nn.Parameter(best[name].clone()) for name in _tuned(plan)})
    optimizer = torch.optim.Adam(trained.values(), lr=plan.rate)
    waited = 0
    for number in range(plan.rounds):
        if len(held) < 12 or waited >= plan.patience:
            step("tuning has ended")
            continue
        for _ in range(plan.steps):
            drawn = torch.randint(len(train), (plan.batch,), generator=generator)
            loss = _loss(model, trained, train[drawn], plan)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            for name, value in trained.items():
                keys = name in NAMES
                getattr(model, name).copy_(on_grid(value) if keys else value)
        found = _held_order(model, held)
        kept = found > highest
        waited = 0 if kept else waited + 1
        if kept:
            highest, best = found, {n: v.clone() for n, v in model.state_dict().items()}
        curve.append({"loss": float(loss.detach()), "held_tau_100": found, "kept": kept})
        step(f"tuning {number + 1}: held-out tau {found:.4f}, started at {start:.4f}")
    model.load_state_dict(best)
    return {"tuning": curve}


def _tuned(plan: Tuning) -> tuple[str, ...]:
    tables = tuple(f"{name}_value" for name in NAMES)
    return NAMES + tables if plan.entries else tables


def _held_order(model: SemanticId, held: Tensor) -> float:
    with torch.no_grad():
        hat = model.decode(in_batches(held, model)) if len(held) else held
    return order(held.numpy(), hat.numpy()).get("tau_100", 0.0)


class _Look(NamedTuple):
    """The entry (B, d) and its value (B, D), straight through; the squared distance, a mean."""

    entry: Tensor
    value: Tensor
    distance: Tensor


def _loss(model: SemanticId, trained: nn.ParameterDict, rows: Tensor, plan: Tuning) -> Tensor:
    """The loss of rows (B, D), by the very steps of the search."""
    first: dict[int, Tensor] = {}  # squared distances as levels look first

    def choose(level: int, seen: Tensor) -> _Look:
        look = _look(model, trained, level, seen, plan)
        first.setdefault(level, look.distance)
        return look

    looks = walk(model.latent(rows), len(NAMES), CARRY, int(model.again), choose)
    commitment = torch.stack(list(first.values())).sum()
    hat = F.normalize(model.mean + torch.stack([each.value for each in looks]).sum(0), dim=1)
    error = (hat - rows).square().sum(1).mean()
    return error + plan.order * _order_loss(rows, hat) + plan.commitment * commitment


def _look(
    model: SemanticId, trained: nn.ParameterDict, level: int, seen: Tensor, plan: Tuning
) -> _Look:
    """What a level makes of what it sees (B, d)."""
    name = NAMES[level]
    values, bias = trained[f"{name}_value"], model.bias(level)
    keys = trained[name] if plan.entries else model.keys(level)
    with torch.no_grad():
        score = torch.addmm(bias - keys.square().sum(1) / 2, seen, keys.T)
        top = score.topk(min(_TOP, len(keys)), dim=1).indices  # (B, 32)
    near = F.embedding(top, keys)  # (B, 32, d); indexing would add gradients in any order
    activation = torch.einsum("bd,bkd->bk", seen, near) - near.square().sum(2) / 2
    share = ((activation + bias[top]) / _SOFT).softmax(1)
    distance = (seen.detach() - near[:, 0]).square().sum(1).mean()
    return _Look(_through(share, near), _through(share, F.embedding(top, values)), distance)


def _through(share: Tensor, entries: Tensor) -> Tensor:
    """The first of entries (B, k, d) going forward, their mixture going backward: (B, d)."""
    soft = torch.einsum("bk,bkd->bd", share, entries)
    return soft + (entries[:, 0] - soft).detach()


def _order_loss(rows: Tensor, hat: Tensor) -> Tensor:
    """KL divergence between the batch's cosine rows before and after."""
    own = torch.eye(len(rows), dtype=torch.bool)
    before, after = (
        (side @ side.T / _SHARP).masked_fill(own, -1e4).log_softmax(1) for side in (rows, hat)
    )
    return F.kl_div(after, before, reduction="batchmean", log_target=True)
