"""Soft tokens of an image against a caption in words, in the same place of the same prompts.

Accuracy on the reference model, on drawn ads whose words say nothing: with soft tokens, with the
caption that the model itself writes from them, with the true one, and with true ones that are cut
until they are right as often as soft tokens are (`matching`). Costs on a random model that is made
for the run, where soft tokens and captions of that length take turns (ABBA): requests per
CPU-second of the engine, beside how many tokens each computes. What both share (the policy) is
cached, every ad is new.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.checks import Prompt
from export.prompts import Words
from export.reference.catalogue import jpeg
from export.reference.checks.examples import Check, Example, image_examples
from export.reference.checks.judging import balanced
from serving.checks.policy import probability
from serving.checks.subjects import inline
from serving.ingest.ads import Ad
from serving.llm.asks import Ask, Read

from .. import random_llm, report, stats
from ..errors import InvalidRunError
from .matching import matched
from .near_models import open_near
from .opened import Desk, opened, together, values
from .soft_costs import costs, in_place

ADS, A_LABEL = 1_500, 150  # drawn ads; checks of each label and answer
HELD_OUT = 5_000_000
EQUAL = 0.005
CAPTION_TOKENS = 64  # most of a caption
CLIENTS, BATCH = 16, 256


def run(folder: Path, size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure."""
    sizes = values()
    near = open_near()
    made = list(image_examples(max(40, round(ADS * scale)), HELD_OUT + seed, silent=1.0))
    pictures = [jpeg(creative.image) for creative, _ in made]
    examples = [example for _, example in made]
    with opened(near.bundle, sizes, near.eyes) as desk:
        asked = balanced(examples, max(4, round(A_LABEL * scale)), seed)
        soft = [
            desk.runner.run(near.eyes.soft(inline(Ad(0, "", "", picture)))) for picture in pictures
        ]
        own = _ids(desk, _captions(desk, examples, soft))
        true = _ids(desk, [example.caption or "" for example in examples])
        right = {
            "soft tokens": _right(desk, examples, asked, soft, None),
            "own caption": _right(desk, examples, asked, soft, own),
        }
        cut = [
            _right(desk, examples, asked, soft, [ids[:most] for ids in true])
            for most in range(1 + max(map(len, true)))
        ]
    images = np.array([number for number, _ in asked])
    lengths = np.array([len(ids) for ids in true])
    equal = matched(right["soft tokens"], cut, images, lengths, seed)
    right |= {"true caption": cut[-1], "true caption, cut": equal.right}
    tokens = {
        "soft tokens": float(desk.policy.checks.soft_tokens),
        "own caption": float(np.mean([len(ids) for ids in own])),
        "true caption": float(lengths.mean()),
        "true caption, cut": float(equal.tokens.mean()),
    }
    rows = [
        {"image_as": name, "accuracy": round(float(r.mean()), 4), "tokens": round(tokens[name], 3)}
        for name, r in right.items()
    ]
    report.table(f"Checks: {len(asked)} on images alone, reference model", rows)
    result: dict[str, Any] = {"checks": len(asked), "accuracy": rows, "chosen": equal.chosen}
    result["accuracy_by_tokens"] = [round(float(one.mean()), 4) for one in cut]
    for name in ("own caption", "true caption", "true caption, cut"):
        found = _difference(right["soft tokens"], right[name], seed)
        said = name.replace(",", "").replace(" ", "_")
        result[f"soft_above_{said}"] = found.shown() | {"equal_within": EQUAL}
    return result | costs(folder, size, (scale, seed), tokens["true caption, cut"])


def _ids(desk: Desk, captions: list[str]) -> list[list[int]]:
    return [list(desk.renderer.content(f" {text}", CAPTION_TOKENS)[0]) for text in captions]


def _captions(desk: Desk, examples: list[Example], soft: list[Any]) -> list[str]:
    prompt = desk.policy.checks.prompts.caption
    if prompt is None:
        raise InvalidRunError("the reference model has no caption prompt")
    said: dict[int, str] = {}

    async def one(number: int) -> None:
        laid = desk.renderer.render(prompt.prompt, _words(examples[number], ""))
        ask = Ask(laid.ids, soft[number], laid.soft_at)
        said[number] = desk.renderer.decode(
            list(await desk.bridge.generate(ask, prompt.max_tokens))
        )

    desk.runner.run(together(one, range(len(examples)), CLIENTS))
    return [said[number] for number in range(len(examples))]


def _right(
    desk: Desk,
    examples: list[Example],
    asked: list[tuple[int, Check]],
    soft: list[Any],
    captions: list[list[int]] | None,
) -> NDArray[np.bool_]:
    """Which checks (n,) are answered rightly; captions: None: with soft tokens."""
    checks = desk.policy.checks

    def ask(number: int, check: Check) -> Ask:
        prompt: Prompt = checks.prompts.relevance
        query = check.question.removeprefix("about ")
        if check.label != "relevance":
            prompt, query = checks.prompts.risk[check.label], ""
        laid = desk.renderer.render(prompt, _words(examples[number], query))
        if captions is None:
            return Ask(laid.ids, soft[number], laid.soft_at)
        return Ask(in_place(laid, checks.soft_tokens, captions[number]))

    reads: list[Read] = []
    for at in range(0, len(asked), BATCH):
        reads += desk.reads([ask(*one) for one in asked[at : at + BATCH]])
    fits = {"relevance": checks.calibration.relevance, **checks.calibration.risk}
    pairs = zip(asked, reads, strict=True)
    return np.array(
        [
            (probability(read, fits[check.label]) >= 0.5) == check.answer
            for (_, check), read in pairs
        ]
    )


def _words(example: Example, query: str) -> Words:
    return Words(example.ad.title, example.ad.text, query, True)


def _difference(one: NDArray[np.bool_], other: NDArray[np.bool_], seed: int) -> stats.Interval:
    """Accuracy of one less that of the other, bootstrapped in pairs."""
    gap = one.astype(float) - other
    draw = np.random.default_rng(seed)
    found = [float(gap[draw.integers(0, len(gap), len(gap))].mean()) for _ in range(2_000)]
    low, high = np.quantile(found, [0.005, 0.995])
    return stats.Interval(float(gap.mean()), float(low), float(high))
