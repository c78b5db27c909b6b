"""Calibration: how far stated probabilities are from shares that came true, on held-out ads.

Expected calibration error over 15 bins of equal mass, for relevance and for every category; labels
and words are generated, with seeds that training and fitting have not seen. Half of the checks of
a label hold, as they were fitted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.checks import Affine, Prompt
from export.prompts import Words
from export.reference.checks.examples import Check, Example, text_examples
from export.reference.checks.judging import balanced
from serving.checks.onboarding.fitting import Line, calibrate, sigmoid
from serving.checks.policy import label_mass, probability
from serving.llm.asks import Ask, Read

from .. import random_llm, report
from .opened import Desk, opened, reference_bundle, values

ADS = 27_000
A_LABEL = 2_550  # checks of each label and answer: 5,000 are left when 64 have been learned from
HELD_OUT = 8_000_000
BINS = 15
BAR = 0.02
FEW, DRAWS, BAR_FEW = 64, 20, 0.05  # labels that a policy is onboarded with
BATCH = 512


def run(folder: Path, size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure; always the reference model."""
    del size
    sizes = values()
    with opened(reference_bundle(folder), sizes) as desk:
        made = text_examples(max(400, round(ADS * scale)), HELD_OUT + seed)
        examples = [one for one in made if one.ad.caption is None]  # words are all there is
        asked = balanced(examples, max(100, round(A_LABEL * scale)), seed)
        reads = _reads(desk, examples, asked)
        fits = {"relevance": desk.policy.checks.calibration.relevance}
        fits |= dict(desk.policy.checks.calibration.risk)
    rows: list[dict[str, Any]] = []
    for label in sorted({check.label for _, check in asked}):
        own = [row for row, (_, check) in enumerate(asked) if check.label == label]
        truth = np.array([asked[row][1].answer for row in own])
        stated = np.array([probability(reads[row], fits[label]) for row in own])
        raw = np.array([probability(reads[row], Affine()) for row in own])
        rows.append(
            {
                "label": label,
                "checks": len(own),
                "ece": round(ece(stated, truth), 4),
                "uncalibrated": round(ece(raw, truth), 4),
                "ece_64_labels": few_labels(reads, own, truth, seed),
                "held_out": len(own) - min(FEW, len(own) // 2),
                "accuracy": round(float(((stated >= 0.5) == truth).mean()), 4),
            }
        )
    report.table("Checks: calibration on held-out generated ads (reference model)", rows)
    worst = max(row["ece"] for row in rows)
    few = max(row["ece_64_labels"] for row in rows)
    mass = min(label_mass(read) for read in reads)
    return {"labels": rows, "worst_ece": worst, "bar": BAR, "lowest_label_mass": mass} | {
        "worst_ece_64_labels": few,
        "bar_64_labels": BAR_FEW,
    }


def few_labels(
    reads: Sequence[Read], own: Sequence[int], truth: NDArray[np.bool_], seed: int
) -> float:
    """ECE of what onboarding fits to 64 labels, on all others; the mean of DRAWS draws."""
    odds = np.array([reads[row].logprobs[0] - reads[row].logprobs[1] for row in own])
    draw, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        order = draw.permutation(len(own))
        few = min(FEW, len(own) // 2)
        seen, held = order[:few], order[few:]
        fit = calibrate(odds[seen], truth[seen], Line(1.0, 0.0))
        found.append(ece(sigmoid(fit(odds[held])), truth[held]))
    return round(float(np.mean(found)), 4)


def ece(stated: NDArray[np.float64], truth: NDArray[np.bool_], bins: int = BINS) -> float:
    """Expected calibration error over bins of equal mass (Nixon et al. 2019, arXiv:1904.01685)."""
    order = np.argsort(stated, kind="stable")
    parts = np.array_split(order, bins)
    off = [abs(stated[p].mean() - truth[p].mean()) * len(p) for p in parts if len(p)]
    return float(sum(off) / len(stated))


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
