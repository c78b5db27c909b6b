"""How a check is put to the language model: the one place that knows the prompt.

    <|policy|> what ads must not do, padded to 32 tokens        the same for every check
    <|ad|> title <|text|> text [<|image|> 8 soft tokens]        the same for all checks of an ad
    <|ask|> gambling <|answer|>  ->  " yes" or " no"

What is shared comes first, so that a prefix cache holds the policy for all ads and an ad for all of
its checks. Marks are special tokens that no ad can write: `clean` takes them out of its words.
"""

import re
from dataclasses import dataclass

from export.reference.labels import EXPERIENCE, RISKS

BLOCK = 32  # tokens a block of the prefix cache; the policy fills whole ones
SOFT_TOKENS = 8
PAD, POLICY, AD, TEXT, IMAGE, ASK, ANSWER, END = MARKS = (
    "<|pad|>",
    "<|policy|>",
    "<|ad|>",
    "<|text|>",
    "<|image|>",
    "<|ask|>",
    "<|answer|>",
    "<|end|>",
)
YES, NO = " yes", " no"
POLICY_TEXT = (
    f"{POLICY} no exaggerated claims, gambling, alcohol, tobacco, weapons, financial promises, "
    "health claims; no low quality, misleading button, clutter"
)
QUESTIONS = {label: label.replace("_", " ") for label in RISKS + EXPERIENCE}
RELEVANCE = "about {query}"
CAPTION = "caption"
MAX_WORDS = 120  # of an ad's text; what follows is not read

_MARK = re.compile(r"<\|[^|<>]*\|>")


@dataclass(frozen=True, slots=True)
class Ad:
    """What the model reads of an ad.

    Attributes:
        title, text: its words.
        caption: words that stand where the image's soft tokens go, or None without an image.
    """

    title: str
    text: str
    caption: str | None = None


def clean(words: str) -> str:
    """Words without marks, and no more of them than are read."""
    while _MARK.search(words):  # taking one out may leave another
        words = _MARK.sub(" ", words)
    return " ".join(words.split()[:MAX_WORDS])


def ad_text(ad: Ad) -> str:
    """The ad's part of the prompt; the image's mark stands last, for soft tokens to follow."""
    words = f"{AD} {clean(ad.title)}{TEXT} {clean(ad.text)}"
    return words if ad.caption is None else f"{words}{IMAGE} {clean(ad.caption)}".rstrip()


def ask(question: str) -> str:
    """The part that asks; the model's next token is the answer."""
    return f"{ASK} {clean(question)}{ANSWER}"
