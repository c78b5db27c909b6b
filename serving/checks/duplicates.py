"""Near copies: creatives that were judged before as other bytes (crops, recolourings, rewordings).

In: subjects with their vectors. Out: the copies of one, nearest first. Search is exact (faiss,
inner products of unit vectors) over the latest MOST creatives, in memory; the oldest are forgotten
first. Whether a copy's verdict is inherited is the cascade's question.
"""

import asyncio
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.prompts import clean
from serving.checks.subjects import Subject
from serving.errors import ConfigurationError

Vector = NDArray[np.float32]
MOST = 32_768  # creatives; 50 MB of vectors of 384 numbers
ADS = 64  # remembered of one creative
FIRST_ROWS = 256
WORDS = 256  # of an ad, remembered as their checksums
NEAREST = 32  # most of them may have verdicts that are inherited themselves
SAME_WORDS = 0.6  # Jaccard index from which on two ads are worded alike


@dataclass(slots=True)
class Creative:
    """One content. vector: (D,) float32. words: checksums of its words. ads: ids that show it."""

    content: bytes
    vector: Vector
    words: frozenset[int]
    ads: set[int]
    row: int = -1

    @classmethod
    def of(cls, subject: Subject, vector: Vector) -> "Creative":
        ads = set() if subject.ad_id is None else {subject.ad_id}
        return cls(subject.content, vector, words_of(subject), ads)

    def alike(self, other: "Creative") -> bool:
        """Whether both are worded alike."""
        if not self.words and not other.words:
            return True
        both, either = self.words & other.words, self.words | other.words
        return len(both) >= SAME_WORDS * len(either)


def words_of(subject: Subject) -> frozenset[int]:
    """CRC-32 of an ad's first words, whatever their order and case; of " " if there are more."""
    words = clean(f"{subject.title} {subject.text}").casefold().split()
    first = [*words[:WORDS], " "] if len(words) > WORDS else words
    return frozenset(zlib.crc32(word.encode()) for word in first)


class Creatives:
    """The index. Vectors of one encoder (`revision`) at a time: another one empties it."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held: OrderedDict[bytes, Creative] = OrderedDict()
        self._rows: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._at: list[Creative | None] = []
        self._revision = ""

    def __len__(self) -> int:
        return len(self._held)

    def add(self, creative: Creative, revision: str) -> None:
        """Remember a creative, in place of the oldest once there are `most`."""
        if revision != self._revision:
            self._held.clear()
            self._rows = np.zeros((0, len(creative.vector)), np.float32)
            self._at, self._revision = [], revision
        held = self._held.get(creative.content)
        if held is not None:
            if len(held.ads) < ADS:
                held.ads |= creative.ads
            self._held.move_to_end(creative.content)
            return
        creative.row = self._free_row()
        self._rows[creative.row] = creative.vector
        self._at[creative.row] = creative
        self._held[creative.content] = creative

    async def near(
        self, creative: Creative, cosine: float, revision: str, most: int = NEAREST
    ) -> list[Creative]:
        """Other creatives that are worded alike and lie at least as near, the nearest first."""
        if revision != self._revision or not self._held:
            return []
        rows, at = self._rows[: len(self._at)], self._at
        found, places = await asyncio.to_thread(_search(), creative.vector[None], rows, most)
        held = [at[place] for place, near in zip(places[0], found[0], strict=True) if near > 0]
        return [
            one
            for one in held
            if one is not None
            and one.content != creative.content
            and float(one.vector @ creative.vector) >= cosine  # its row may be another's by now
            and one.alike(creative)
        ]

    def _free_row(self) -> int:
        if len(self._held) >= self._most:
            _, oldest = self._held.popitem(last=False)
            return oldest.row
        if len(self._at) == len(self._rows):  # larger, in a new array: searches go on in the old
            more = min(self._most, max(FIRST_ROWS, 2 * len(self._rows)))
            grown = np.zeros((more, self._rows.shape[1]), np.float32)
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        self._at.append(None)
        return len(self._at) - 1


def new_words(copy: Creative, of: Creative) -> Collection[int]:
    """Words that only the copy has: what may have been smuggled in."""
    return copy.words - of.words


def _search() -> Callable[[Vector, Vector, int], tuple[Any, Any]]:
    """`faiss.knn` by inner product: (1, D), (n, D) -> cosines and places (1, k), padded with -1."""
    try:
        import faiss
    except ImportError as error:
        raise ConfigurationError(
            "near copies are searched with faiss: pip install tessera[cpu], or say "
            "`duplicates: null` in the policies"
        ) from error

    def search(query: Vector, rows: Vector, k: int) -> tuple[Any, Any]:
        found: tuple[Any, Any] = faiss.knn(
            query, rows, min(k, len(rows)), metric=faiss.METRIC_INNER_PRODUCT
        )
        return found

    return search
