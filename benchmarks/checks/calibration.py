"""Calibration: how far stated probabilities are from shares that came true, on held-out ads.

Expected calibration error over 15 bins of equal mass, for relevance and for every category: as the
model was shipped, as onboarding fits it to thousands of labels of other ads, and to 64. Labels and
words are generated, with seeds that training has not seen. Half of the checks of a label hold, as
they were fitted. Beside them what chance leaves: the error where every probability is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.checks import Affine, Prompt
from export.prompts import Words
from export.reference.checks.examples import Check, Example, text_examples
from export.reference.checks.judging import balanced
from serving.checks.onboarding.bending import calibrate
from serving.checks.onboarding.fitting import Line, sigmoid
from serving.checks.policy import label_mass, probability
from serving.llm.asks import Ask, Read

from .. import random_llm, report
from .opened import Desk, opened, reference_bundle, values

ADS = 27_000
A_LABEL = 2_550  # checks of each label and answer: 5,000 are left when 64 have been learned from
HELD_OUT, LEARNED = 8_000_000, 9_000_000
BINS = 15
BAR = 0.02
FEW, DRAWS, BAR_FEW = 64, 20, 0.05  # labels that a policy is onboarded with
BATCH = 512


@dataclass(frozen=True, slots=True)
class Asked:
    """Checks of one label: what the model read, and what is true (n,)."""

    reads: Sequence[Read]
    truth: NDArray[np.bool_]

    @property
    def odds(self) -> NDArray[np.float64]:
        """log p(yes) - log p(no), (n,)."""
        return np.array([read.logprobs[0] - read.logprobs[1] for read in self.reads])


def run(folder: Path, size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure; always the reference model."""
    del size
    sizes = values()
    with opened(reference_bundle(folder), sizes) as desk:
        parts = [_asked(desk, first + seed, scale, seed) for first in (HELD_OUT, LEARNED)]
        fits = {"relevance": desk.policy.checks.calibration.relevance}
        fits |= dict(desk.policy.checks.calibration.risk)
    judged, learned = parts
    rows = [_row(label, judged[label], learned[label], fits[label], seed) for label in judged]
    report.table("Checks: calibration on held-out generated ads (reference model)", rows)
    mass = min(label_mass(read) for seen in judged.values() for read in seen.reads)
    worst = {name: max(row[name] for row in rows) for name in ("ece", "ece_full", "ece_64_labels")}
    return {"labels": rows, "bar": BAR, "bar_64_labels": BAR_FEW, "lowest_label_mass": mass} | {
        f"worst_{name}": value for name, value in worst.items()
    }


def _row(label: str, judged: Asked, learned: Asked, shipped: Affine, seed: int) -> dict[str, Any]:
    stated = np.array([probability(read, shipped) for read in judged.reads])
    fit = calibrate(learned.odds, learned.truth, Line(1.0, 0.0))
    full = sigmoid(fit(judged.odds))
    draw = np.random.default_rng(seed)
    chance = [ece(full, draw.random(len(full)) < full) for _ in range(DRAWS)]
    return {
        "label": label,
        "checks": len(full),
        "uncalibrated": round(ece(sigmoid(judged.odds), judged.truth), 4),
        "ece": round(ece(stated, judged.truth), 4),
        "ece_full": round(ece(full, judged.truth), 4),
        "fitted_to": len(learned.truth),
        "bends": len(fit.bends),
        "by_chance": round(float(np.mean(chance)), 4),
        "ece_64_labels": few_labels(judged, seed),
        "held_out": len(full) - min(FEW, len(full) // 2),
        "accuracy": round(float(((full >= 0.5) == judged.truth).mean()), 4),
    }


def few_labels(judged: Asked, seed: int) -> float:
    """ECE of what onboarding fits to 64 labels, on all others; the mean of DRAWS draws."""
    draw, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        order = draw.permutation(len(judged.truth))
        few = min(FEW, len(order) // 2)
        seen, held = order[:few], order[few:]
        fit = calibrate(judged.odds[seen], judged.truth[seen], Line(1.0, 0.0))
        found.append(ece(sigmoid(fit(judged.odds[held])), judged.truth[held]))
    return round(float(np.mean(found)), 4)


def ece(stated: NDArray[np.float64], truth: NDArray[np.bool_], bins: int = BINS) -> float:
    """Expected calibration error over bins of equal mass (Nixon et al. 2019, arXiv:1904.01685)."""
    order = np.argsort(stated, kind="stable")
    parts = np.array_split(order, bins)
    off = [abs(stated[p].mean() - truth[p].mean()) * len(p) for p in parts if len(p)]
    return float(sum(off) / len(stated))


def _asked(desk: Desk, first: int, scale: float, seed: int) -> dict[str, Asked]:
    """The checks of ads that are drawn from `first` on, by label."""
    made = text_examples(max(400, round(ADS * scale)), first)
    examples = [one for one in made if one.ad.caption is None]  # words are all there is
    asked = balanced(examples, max(100, round(A_LABEL * scale)), seed)
    reads = _reads(desk, examples, asked)
    found: dict[str, Asked] = {}
    for label in sorted({check.label for _, check in asked}):
        own = [row for row, (_, check) in enumerate(asked) if check.label == label]
        truth = np.array([asked[row][1].answer for row in own])
        found[label] = Asked([reads[row] for row in own], truth)
    return found


def _reads(desk: Desk, examples: list[Example], asked: list[tuple[int, Check]]) -> list[Read]:
    prompts = desk.policy.checks.prompts

    def laid_out(number: int, check: Check) -> Ask:
        ad = examples[number].ad
        prompt: Prompt = prompts.relevance
        query = check.question.removeprefix("about ")
        if check.label != "relevance":
            prompt, query = prompts.risk[check.label], ""
        return Ask(desk.renderer.render(prompt, Words(ad.title, ad.text, query)).ids)

    reads: list[Read] = []
    for at in range(0, len(asked), BATCH):
        reads += desk.reads([laid_out(*one) for one in asked[at : at + BATCH]])
    return reads
