"""Examples as tensors: an ad once, and all of its questions beside each other.

Each question sees the policy, the ad and itself, and stands at the position it would have as the
only one. So one pass learns a dozen answers, and asks exactly what serving asks one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from export.reference.checks.examples import Example
from export.reference.checks.model import label_id
from export.reference.checks.prompt import (
    BLOCK,
    CAPTION,
    END,
    IMAGE,
    NO,
    PAD,
    POLICY_TEXT,
    SOFT_TOKENS,
    YES,
    ad_text,
    ask,
)

IGNORED = -100  # as in torch's cross entropy


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch.

    Attributes:
        ids: int64 (B, T); soft positions hold the padding id.
        positions: int64 (B, T).
        mask: float32 (B, 1, T, T), 0 where a token sees another and -inf elsewhere.
        targets: int64 (B, T), the token to follow, or -100.
        soft: int64 (B,), where the soft tokens begin, or -1.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    targets: Tensor
    soft: Tensor


class Packer:
    """Turns examples into batches with one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.yes, self.no = label_id(tokenizer, YES), label_id(tokenizer, NO)
        self.pad, self.image = tokenizer.token_to_id(PAD), tokenizer.token_to_id(IMAGE)
        self.end = tokenizer.token_to_id(END)
        policy = self.encode(POLICY_TEXT)
        self.policy = policy + [self.pad] * (-len(policy) % BLOCK)

    def encode(self, words: str) -> list[int]:
        """Token ids of a part of the prompt."""
        ids: list[int] = self.tokenizer.encode(words, add_special_tokens=False).ids
        return ids

    def pack(self, examples: Sequence[Example], soft: bool) -> Packed:
        """Packs a batch; with `soft`, eight free positions follow the image's mark."""
        rows = [self._row(example, soft) for example in examples]
        length = max(len(row[0]) for row in rows)
        ids = torch.full((len(rows), length), self.pad)
        targets = torch.full((len(rows), length), IGNORED)
        positions = torch.zeros((len(rows), length), dtype=torch.int64)
        segment = torch.full((len(rows), length), -1)
        starts = torch.full((len(rows),), -1)
        for i, (tokens, wanted, places, parts, start) in enumerate(rows):
            ids[i, : len(tokens)] = torch.tensor(tokens)
            targets[i, : len(tokens)] = torch.tensor(wanted)
            positions[i, : len(tokens)] = torch.tensor(places)
            segment[i, : len(tokens)] = torch.tensor(parts)
            starts[i] = start
        before = torch.ones(length, length, dtype=torch.bool).tril()
        same = segment[:, :, None] == segment[:, None, :]
        shared = (segment == 0)[:, None, :]
        seen = before & (same | shared)
        mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None]
        return Packed(ids, positions, mask, targets, starts)

    def _row(
        self, example: Example, soft: bool
    ) -> tuple[list[int], list[int], list[int], list[int], int]:
        """Tokens, targets, positions and segment numbers of one example, and its soft start."""
        tokens = self.policy + self.encode(ad_text(example.ad))
        start = -1
        if soft:
            start = len(tokens)  # the image's mark is the last token of an ad without caption
            tokens = tokens + [self.pad] * SOFT_TOKENS
        shared = len(tokens)
        targets, places, parts = [IGNORED] * shared, list(range(shared)), [0] * shared
        asked = [
            (self.encode(ask(check.question)), [self.yes if check.answer else self.no])
            for check in example.checks
        ]
        if example.caption is not None:
            words = [*self.encode(f" {example.caption}"), self.end]
            asked.append((self.encode(ask(CAPTION)), words))
        for number, (question, answer) in enumerate(asked, start=1):
            row = question + answer[:-1]
            tokens = tokens + row
            targets += [IGNORED] * (len(question) - 1) + answer
            places += range(shared, shared + len(row))
            parts += [number] * len(row)
        return tokens, targets, places, parts, start
