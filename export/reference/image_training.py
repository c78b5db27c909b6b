"""Trains the image tower: photos towards their class's words, drawn creatives towards captions.

In: class folders of photos and the generated catalogue. Out: an `ImageEncoder` with averaged
weights. Photos are classified by the nearest class text, contrastively as CLIP does (arXiv
2103.00020) with the text tower frozen (LiT, arXiv 2111.07991). Drawn creatives are matched with
their captions, and linear heads that are thrown away afterwards see to it that class, colour and
risk stay readable from the features.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.reference.augment import Views, crops, mix
from export.reference.image_data import (
    PRODUCTS,
    DrawnSet,
    PhotoSet,
    draw_creatives,
    load_photos,
)
from export.reference.image_encoder import SIZE, ImageEncoder
from export.reference.labels import COLOURS, LABELS
from export.reference.photos import PhotoFolder
from export.reference.progress import progress
from export.reference.text_tower import class_rows

_SCALE = 50.0  # inverse temperature of the cosines


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard to train.

    Attributes:
        epochs: passes over the photos.
        seed: of everything drawn.
        batch: photos a step.
        drawn_batch: drawn creatives a step, beside the photos.
        drawn: how many creatives are drawn for the whole training.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of matrices and filters.
        average: how far the averaged weights look back, as a share of all steps.
    """

    epochs: int = 100
    seed: int = 7
    batch: int = 32
    drawn_batch: int = 8
    drawn: int = 6000
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    average: float = 0.03


class Heads(nn.Module):
    """Linear readers of the features, used in training only."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.photo = nn.Linear(384, classes)
        self.product = nn.Linear(384, len(PRODUCTS))
        self.colour = nn.Linear(384, len(COLOURS))
        self.flags = nn.Linear(384, len(LABELS))

    def forward(self, features: Tensor, drawn: DrawnSet, rows: Tensor) -> Tensor:
        """Mean loss of the three readers for the drawn creatives `rows` of `drawn`."""
        x = features * 10.0
        return (
            F.cross_entropy(self.product(x), drawn.product[rows])
            + F.cross_entropy(self.colour(x), drawn.colour[rows])
            + 4 * F.binary_cross_entropy_with_logits(self.flags(x), drawn.flags[rows])
        ) / 3


def train(
    folder: PhotoFolder, plan: Plan, checkpoint: Path, report: Callable[[str], None]
) -> ImageEncoder:
    """Trains for `plan.epochs`, going on from `checkpoint` when it is there.

    Returns: the encoder with exponentially averaged weights, in eval mode.
    """
    torch.manual_seed(plan.seed)
    photos, drawn = load_photos(folder), draw_creatives(plan.drawn, plan.seed)
    texts = torch.from_numpy(class_rows(folder.classes))
    state = _State(plan, len(folder.classes), max(1, len(photos.labels) // plan.batch))
    first = state.resume(checkpoint)
    with progress("train image encoder", plan.epochs) as advance:
        advance(steps=first)
        for epoch in range(first, plan.epochs):
            generator = torch.Generator().manual_seed(plan.seed * 100_003 + epoch)
            order = torch.randperm(len(photos.labels), generator=generator)
            losses: list[float] = []
            stage = _stage(epoch / plan.epochs)
            for step in range(state.steps_per_epoch):
                rows = order[step * plan.batch : (step + 1) * plan.batch]
                losses.append(state.step(photos, rows, drawn, texts, stage, generator))
            state.save(checkpoint, epoch + 1)
            note = f"epoch {epoch + 1} loss {np.mean(losses):.3f}"
            report(note)
            advance(note)
    return state.averaged.eval()


def _stage(done: float) -> tuple[int, bool]:
    """Side of the views, and whether they are mixed, when `done` (0..1) of the epochs are over.

    Small views first: they cost half as much and lose nothing that early (progressive resizing,
    arXiv 2104.00298). The last epochs see whole pictures, as serving will.
    """
    size = 64 if done < 0.5 else 80 if done < 0.72 else SIZE
    return size, done < 0.88


class _State:
    """The weights in training, their average, and the optimiser's place in its schedule."""

    def __init__(self, plan: Plan, classes: int, steps_per_epoch: int) -> None:
        self.plan, self.steps_per_epoch = plan, steps_per_epoch
        self.model = ImageEncoder()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.heads = Heads(classes)
        self.averaged = deepcopy(self.model)
        decayed: list[nn.Parameter] = [p for p in self.model.parameters() if p.ndim > 1]
        others: list[nn.Parameter] = [p for p in self.model.parameters() if p.ndim == 1]
        others += self.heads.parameters()
        groups: list[dict[str, Any]] = [
            {"params": decayed},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=plan.learning_rate,
            weight_decay=plan.weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=plan.learning_rate,
            total_steps=plan.epochs * steps_per_epoch + 1,
            pct_start=0.15,
        )
        self.steps = 0

    def step(
        self,
        photos: PhotoSet,
        rows: Tensor,
        drawn: DrawnSet,
        texts: Tensor,
        stage: tuple[int, bool],
        generator: torch.Generator,
    ) -> float:
        """One update on `rows` of the photos and a draw of creatives; returns the loss."""
        size, mixing = stage
        images = crops(photos.squares[rows], photos.aspect[rows], size, Views(), generator)
        targets = F.one_hot(photos.labels[rows], texts.shape[1]).float()
        if mixing:
            images, targets = mix(images, targets, generator)
        count = min(self.plan.drawn_batch, len(drawn.product))
        chosen = torch.randint(len(drawn.product), (count,), generator=generator)
        seen = crops(
            drawn.squares[chosen], torch.ones(count), size, Views(0.75, 4.0, 0.1, 0.0), generator
        )
        batch = torch.cat([images, seen])
        batch = (batch - self.model.mean.view(3, 1, 1)) / self.model.std.view(3, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            features = self.model.embed(batch.to(memory_format=torch.channels_last))
        # A template of all, or as often their mean, which is what photos are judged by.
        template = int(torch.randint(2 * len(texts), (), generator=generator))
        classes = texts[min(template, len(texts) - 1)]
        of_photos, of_drawn = features[: len(rows)], features[len(rows) :]
        loss = _photo_loss(of_photos, targets, classes)
        loss = loss + F.cross_entropy(self.heads.photo(of_photos * 10.0), targets)
        loss = loss + 0.25 * _drawn_loss(of_drawn, drawn, chosen, generator)
        loss = loss + 0.25 * self.heads(of_drawn, drawn, chosen)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimizer.step()
        self.schedule.step()
        self._average()
        return float(loss.detach())

    @torch.no_grad()
    def _average(self) -> None:
        self.steps += 1
        horizon = self.plan.average * self.plan.epochs * self.steps_per_epoch
        keep = min(1 - 1 / (horizon + 1), self.steps / (self.steps + 10))
        for mean, new in zip(
            self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - keep)
            else:
                mean.copy_(new)

    def _parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "heads": self.heads,
            "averaged": self.averaged,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }

    def save(self, file: Path, epoch: int) -> None:
        """Keeps everything that the next epoch needs."""
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        state = {name: item.state_dict() for name, item in self._parts().items()}
        torch.save({**state, "epoch": epoch, "steps": self.steps, "plan": repr(self.plan)}, part)
        part.replace(file)

    def resume(self, file: Path) -> int:
        """Goes on from `file` if it is of the same plan; returns the epochs already done."""
        if not file.is_file():
            return 0
        kept = torch.load(file, weights_only=True)
        if kept["plan"] != repr(self.plan):
            return 0
        for name, item in self._parts().items():
            item.load_state_dict(kept[name])
        self.steps = kept["steps"]
        return int(kept["epoch"])


def _photo_loss(features: Tensor, targets: Tensor, classes: Tensor) -> Tensor:
    """Cross entropy over class texts, and a pull towards the right one."""
    logits = _SCALE * features @ classes.T
    pull = 1 - (features * F.normalize(targets @ classes, dim=1)).sum(1).mean()
    return F.cross_entropy(logits, targets, label_smoothing=0.1) + 0.3 * pull


def _drawn_loss(
    features: Tensor, drawn: DrawnSet, chosen: Tensor, generator: torch.Generator
) -> Tensor:
    """Matches creatives with their captions among those of 256 others; equal captions share."""
    bank = torch.cat([chosen, torch.randint(len(drawn.product), (256,), generator=generator)])
    same = (drawn.caption_id[chosen][:, None] == drawn.caption_id[bank][None]).float()
    logits = _SCALE * features @ drawn.captions[bank].T
    pull = 1 - (features * drawn.captions[chosen]).sum(1).mean()
    return F.cross_entropy(logits, same / same.sum(1, keepdim=True)) + 0.5 * pull
