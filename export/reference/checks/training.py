"""Trains the language model on text, freezes it, then trains the adapter through it.

In: generated examples; for the adapter also features of drawn creatives and of photos. Out: the
model, its tokenizer, the adapter. The loss is taken on answers only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.reference.checks.examples import Example, text_examples
from export.reference.checks.model import Adapter, new_model, train_tokenizer
from export.reference.checks.packing import IGNORED, Packed, Packer
from export.reference.checks.prompt import (
    CAPTION,
    MARKS,
    NO,
    POLICY_TEXT,
    RELEVANCE,
    YES,
    ad_text,
)
from export.reference.progress import progress

_TOKENIZER_ADS = 6000
_REPORTED = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to train.

    Attributes:
        seed: of everything drawn. Ads for scores come from other seeds.
        ads: text ads that the language model sees, each once.
        adapter_steps: batches that the adapter sees.
        batch: ads a step.
        learning_rate: peak, for the model; the adapter's is the same.
    """

    seed: int = 7
    ads: int = 20_000
    adapter_steps: int = 1500
    batch: int = 16
    learning_rate: float = 2e-3


@dataclass(frozen=True, slots=True)
class Seen:
    """Examples with what the image tower made of their pictures: float32 (n, 384)."""

    examples: Sequence[Example]
    features: Tensor


def tokenizer_lines(seed: int) -> Iterator[str]:
    """What the tokenizer is learned on: ads, questions and labels."""
    yield POLICY_TEXT
    for example in text_examples(_TOKENIZER_ADS, seed):
        # Marks are special tokens already; the trainer would only cut at their signs.
        words = ad_text(example.ad)
        for mark in MARKS:
            words = words.replace(mark, " ")
        yield words
        for check in example.checks:
            yield f" {check.question}{YES if check.answer else NO}"
        yield f" {CAPTION} {RELEVANCE}"


def train_language_model(plan: Plan, report: Callable[[str], None]) -> tuple[Any, Packer]:
    """Trains on text alone. Returns: the frozen model in eval mode, and its packer."""
    packer = Packer(train_tokenizer(tokenizer_lines(plan.seed)))
    model = new_model(packer.tokenizer.get_vocab_size(), plan.seed)
    steps = max(1, plan.ads // plan.batch)
    examples = text_examples(steps * plan.batch, plan.seed)
    stepper = _Stepper(model, plan, steps)
    with progress("train language model", steps) as advance:
        for step in range(1, steps + 1):
            batch = packer.pack(list(islice(examples, plan.batch)), soft=False)
            with torch.autocast("cpu", torch.bfloat16):
                loss = answer_loss(model, batch, None, packer.yes)
            note = stepper.step(loss)
            advance(note)
            if step % _REPORTED == 0:
                report(f"step {step} {note}")
    model.requires_grad_(False)
    return model.eval(), packer


def train_adapter(
    model: Any, packer: Packer, sources: Sequence[Seen], plan: Plan, report: Callable[[str], None]
) -> Adapter:
    """Trains the adapter through the frozen model; each source has an equal share of a batch."""
    torch.manual_seed(plan.seed)
    generator = torch.Generator().manual_seed(plan.seed)
    adapter = Adapter()
    # Soft tokens start out as long as the model's own.
    nn.init.normal_(adapter.out.bias, std=float(model.get_input_embeddings().weight.std()))
    stepper = _Stepper(adapter, plan, plan.adapter_steps)
    share = max(1, plan.batch // len(sources))
    with progress("train adapter", plan.adapter_steps) as advance:
        for step in range(1, plan.adapter_steps + 1):
            examples: list[Example] = []
            features = []
            for source in sources:
                rows = torch.randint(len(source.examples), (share,), generator=generator)
                examples += [source.examples[row] for row in rows.tolist()]
                features.append(source.features[rows])
            batch = packer.pack(examples, soft=True)
            with torch.autocast("cpu", torch.bfloat16):
                loss = answer_loss(model, batch, adapter(torch.cat(features)), packer.yes)
            note = stepper.step(loss)
            advance(note)
            if step % _REPORTED == 0:
                report(f"step {step} {note}")
    return adapter.eval()


def embeddings(model: Any, batch: Packed, soft: Tensor | None) -> Tensor:
    """Input rows (B, T, width), soft tokens (B, 8, width) in their places."""
    rows: Tensor = model.get_input_embeddings()(batch.ids)
    if soft is None:
        return rows
    index = batch.soft[:, None] + torch.arange(soft.shape[1])
    return rows.scatter(1, index[:, :, None].expand_as(soft), soft.to(rows.dtype))


def answer_logits(model: Any, batch: Packed, soft: Tensor | None) -> Tensor:
    """Logits float32 (n, vocabulary) where an answer stands."""
    states = model.model(
        inputs_embeds=embeddings(model, batch, soft),
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    logits: Tensor = model.lm_head(states[batch.targets != IGNORED]).float()
    return logits


def answer_loss(model: Any, batch: Packed, soft: Tensor | None, yes: int) -> Tensor:
    """Cross entropy of the answers; a yes, which is rarer, counts twice."""
    targets = batch.targets[batch.targets != IGNORED]
    logits = answer_logits(model, batch, soft)
    weight = torch.where(targets == yes, 2.0, 1.0)
    loss = F.cross_entropy(logits, targets, reduction="none")
    return (loss * weight).sum() / weight.sum()


class _Stepper:
    """AdamW with a one-cycle schedule over `steps` updates of `module`."""

    def __init__(self, module: nn.Module, plan: Plan, steps: int) -> None:
        self.module = module
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=plan.learning_rate, weight_decay=0.01, betas=(0.9, 0.98)
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=plan.learning_rate, total_steps=steps + 1, pct_start=0.1
        )
        self.losses: list[float] = []

    def step(self, loss: Tensor) -> str:
        """One update. Returns: the mean of the last losses, for the progress bar."""
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.losses.append(float(loss.detach()))
        return f"loss {np.mean(self.losses[-50:]):.3f}"
