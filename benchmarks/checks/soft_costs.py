"""What soft tokens and captions cost: one random model, the same ads, taking turns.

In: how many tokens a caption has in the mean. Out: throughput beside the tokens to be computed.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.prompts import Rendered, Words
from serving.llm.asks import Ask
from serving.llm.vllm_engine import Job

from .. import random_llm, report, stats
from .opened import Desk, opened, random_bundle, stepped, values
from .overhead import words

BAR = 0.8  # of the ratio of computed tokens
CLIENTS, REQUESTS, ROUNDS = 64, 128, 5
WORD_IDS = (300, 490)  # of the random model's tokenizer


def costs(
    folder: Path, size: random_llm.Size, plan: tuple[float, int], caption_tokens: float
) -> dict[str, Any]:
    """Measure. plan: scale and seed."""
    scale, seed = plan
    requests = max(16, round(REQUESTS * scale))
    with opened(random_bundle(folder, size, seed), values()) as desk:
        blocks = {
            "soft": _Block(desk, size.hidden, requests, None),
            "caption": _Block(desk, size.hidden, requests, caption_tokens),
        }
        for block in blocks.values():  # warm: kernels, and the policy's prefix
            block.computed()
        computed = {name: block.computed() for name, block in blocks.items()}
        subjects: dict[str, Callable[[int], float]] = {n: b.taken for n, b in blocks.items()}
        taken = stats.abba(subjects, max(2, round(ROUNDS * scale)))
    lengths = computed["caption"] / computed["soft"]
    gain = stats.ratio(taken["caption"], taken["soft"])
    kept = stats.Interval(gain.value / lengths, gain.low / lengths, gain.high / lengths)
    report.say(f"throughput {gain.value:.2f} at {lengths:.2f} of the computed tokens")
    return {
        "caption_tokens": round(caption_tokens, 3),
        "computed_tokens": computed,
        "length_ratio": round(lengths, 4),
        "image_length_ratio": round(caption_tokens / random_llm.SOFT_TOKENS, 3),
        "throughput_ratio": gain.shown(),
        "of_length_ratio": kept.judged(BAR, least=True),
    }


class _Block:
    """Blocks of requests of one kind; caption: its tokens in the mean, None: soft tokens."""

    def __init__(self, desk: Desk, hidden: int, requests: int, caption: float | None) -> None:
        self._desk = desk
        self._hidden = hidden
        self._requests = requests
        self._caption = caption
        self._numbers = itertools.count()

    def computed(self) -> float:
        """Tokens of a request that are not in the cache."""
        asks = self._asks()
        found = self._desk.reads(asks)
        pairs = zip(asks, found, strict=True)
        return float(np.mean([len(ask.ids) - read.cached_tokens for ask, read in pairs]))

    def taken(self, _: int) -> float:
        """CPU seconds a request."""
        asks, block = self._asks(), next(self._numbers)
        jobs = [
            Job(f"{self._caption}-{block}-{row}", ask, self._desk.labels)
            for row, ask in enumerate(asks)
        ]
        before = time.process_time()
        stepped(self._desk.raw, jobs, CLIENTS)
        return (time.process_time() - before) / self._requests

    def _asks(self) -> list[Ask]:
        first = (2 * next(self._numbers) + (self._caption is None)) * 1_000_003 * self._requests
        return [self._ask(number) for number in range(first, first + self._requests)]

    def _ask(self, number: int) -> Ask:
        draw = np.random.default_rng((number, 7))
        prompt = self._desk.policy.checks.prompts.relevance
        laid = self._desk.renderer.render(prompt, Words(*words(number), "red shoes", True))
        if self._caption is not None:
            more = draw.random() < self._caption % 1
            said = draw.integers(*WORD_IDS, int(self._caption) + more).tolist()
            return Ask(in_place(laid, random_llm.SOFT_TOKENS, said))
        rows = draw.normal(0, 0.02, (random_llm.SOFT_TOKENS, self._hidden)).astype(np.float32)
        return Ask(laid.ids, rows, laid.soft_at)


def in_place(laid: Rendered, soft_tokens: int, said: list[int]) -> tuple[int, ...]:
    """A prompt with ids where its soft tokens were to go."""
    at = laid.soft_at or 0
    return (*laid.ids[:at], *said, *laid.ids[at + soft_tokens :])
