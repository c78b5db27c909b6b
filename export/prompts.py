"""Prompts as token ids: the one rule by which training, benchmarks and serving lay them out.

In: a tokenizer's file, prompts, and an ad's words. Out: ids, and where the soft tokens of the image
go. Every literal piece of a prompt and every piece of content is tokenized on its own and the ids
are joined; a space that ends a literal goes with the content behind it, as words are. Content is
data: it is cleaned to one line, no added token of the tokenizer (such as `<|im_end|>`) is ever
recognised in it, and it is cut at its limit, which is said.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.checks import Checks, Prompt, places
from export.errors import SourceError

# A token is rarely longer, and a tokenizer's time grows with the text, not with what is kept.
CHARACTERS_PER_TOKEN = 16
# Stands where a soft token goes; its row is taken from the prompt embeddings.
PLACEHOLDER = 0
_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff]+")


@dataclass(frozen=True, slots=True)
class Words:
    """What is asked about. image: whether the ad's soft tokens are there to go in."""

    title: str = ""
    text: str = ""
    query: str = ""
    image: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt. soft_at: index of the first soft token, None without. cut: fields cut short."""

    ids: tuple[int, ...]
    soft_at: int | None
    cut: tuple[str, ...]


def clean(text: str) -> str:
    """NFKC (Unicode Annex 15) in one line: no control, zero-width or direction characters."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip()


def normalise_query(query: str) -> str:
    """What two spellings of the same query share; the model reads this form too."""
    return clean(query).casefold()


class Renderer:
    """Renders the prompts of one tokenizer and `checks.json`."""

    def __init__(self, tokenizer: Path, checks: Checks) -> None:
        from tokenizers import Tokenizer

        self._literal: Any = Tokenizer.from_file(str(tokenizer))
        self._literal.no_truncation()
        self._literal.no_padding()
        plain = json.loads(tokenizer.read_bytes())
        self._special = frozenset(int(token["id"]) for token in plain["added_tokens"])
        plain["added_tokens"], plain["post_processor"] = [], None
        plain["truncation"], plain["padding"] = None, None
        self._content: Any = Tokenizer.from_str(json.dumps(plain))
        self._limits = {
            "query": checks.limits.query_tokens,
            "title": checks.limits.title_tokens,
            "text": checks.limits.text_tokens,
        }
        self._soft_tokens = checks.soft_tokens
        self._image_mark = checks.image_mark
        self._block_size = checks.block_size
        self._filler = checks.filler
        self._pieces: dict[str, tuple[int, ...]] = {}

    def render(self, prompt: Prompt, words: Words) -> Rendered:
        """Lay out one prompt."""
        ids = self.prefix(prompt)
        soft_at: int | None = None
        cut: list[str] = []
        fields: Mapping[str, str] = {
            "title": clean(words.title),
            "text": clean(words.text),
            "query": normalise_query(words.query),
        }
        for literal, place in places(prompt.body):
            if place in (None, "image"):
                ids += self._piece(literal)
                if place == "image" and words.image and self._soft_tokens:
                    ids += self._piece(self._image_mark)
                    soft_at = len(ids)
                    ids += [PLACEHOLDER] * self._soft_tokens
            elif place is not None:
                space = " " if literal.endswith(" ") else ""
                ids += self._piece(literal.removesuffix(" "))
                found, whole = self.content(space + fields[place], self._limits[place])
                ids += found
                if not whole:
                    cut.append(place)
        ids += self._piece(prompt.suffix)
        return Rendered(tuple(ids), soft_at, tuple(cut))

    def prefix(self, prompt: Prompt) -> list[int]:
        """Ids of what all ads share, filled to whole blocks of the cache. Raises SourceError."""
        ids = list(self._piece(prompt.prefix))
        if self._filler and ids:
            filler = self._piece(self._filler)
            if len(filler) != 1:
                raise SourceError(
                    f"filler: expected one token, found {len(filler)} in {self._filler!r}"
                )
            ids += filler * (-len(ids) % self._block_size)
        return ids

    def content(self, text: str, limit: int) -> tuple[list[int], bool]:
        """Ids of somebody's words, at most `limit`; and whether that is all of them."""
        if not text:
            return [], True
        most = limit * CHARACTERS_PER_TOKEN
        ids = self._content.encode(text[:most], add_special_tokens=False).ids
        # A vocabulary may hold the same strings as ordinary words: they are left out too.
        ids = [token for token in ids if token not in self._special]
        return ids[:limit], len(ids) <= limit and len(text) <= most

    def single(self, text: str) -> list[int]:
        """Ids of a label as it follows a prompt: exactly one if it is fit to be a label."""
        return list(self._piece(text))

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, without special tokens, cleaned."""
        return clean(self._literal.decode(ids, skip_special_tokens=True))

    def _piece(self, literal: str) -> tuple[int, ...]:
        if literal not in self._pieces:
            found = self._literal.encode(literal, add_special_tokens=False).ids
            self._pieces[literal] = tuple(found)
        return self._pieces[literal]
