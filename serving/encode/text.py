"""Texts to the token arrays that text towers take.

In: strings. Out: groups of rows whose arrays share one length, so that short titles are not padded
to the longest text that happens to travel with them. The vocabulary is the `tokenizer.json` in the
tower's own bundle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Lengths that rows are padded to: few enough shapes for a runtime to keep its buffers.
LENGTHS = (16, 32, 64, 128, 256, 512)
# A word is rarely longer, and a tokenizer's time grows with the text, not with what is kept of it.
CHARACTERS_PER_TOKEN = 16


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of one length. rows: int (m,), places in the input; both arrays int64 (m, T)."""

    rows: NDArray[np.intp]
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


class TextTokenizer:
    """A `tokenizer.json` with truncation at `max_tokens` and padding of our own."""

    def __init__(self, path: Path, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens

    def __call__(self, texts: Sequence[str]) -> list[TokenRows]:
        """Tokenize; every input row is in exactly one of the groups that come back."""
        cut = self._max_tokens * CHARACTERS_PER_TOKEN
        encodings = self._tokenizer.encode_batch_fast([text[:cut] for text in texts])
        by_length: dict[int, list[int]] = {}
        for row, encoding in enumerate(encodings):
            by_length.setdefault(self._padded(len(encoding.ids)), []).append(row)
        return [self._group(encodings, rows, length) for length, rows in by_length.items()]

    def _padded(self, tokens: int) -> int:
        return min(next((n for n in LENGTHS if tokens <= n), tokens), self._max_tokens)

    def _group(self, encodings: Sequence[Any], rows: list[int], length: int) -> TokenRows:
        ids = np.zeros((len(rows), length), np.int64)
        mask = np.zeros((len(rows), length), np.int64)
        for place, row in enumerate(rows):
            tokens = encodings[row].ids
            ids[place, : len(tokens)] = tokens
            mask[place, : len(tokens)] = 1
        return TokenRows(np.asarray(rows, np.intp), ids, mask)
