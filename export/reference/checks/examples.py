"""Generated ads with questions and answers: what the language model learns and is judged on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from export.reference.catalogue import Creative, caption, generate
from export.reference.checks.prompt import QUESTIONS, RELEVANCE, Ad
from export.reference.drawing import Scene
from export.reference.labels import CLOTHING, COLOURS, EXPERIENCE, GOODS, LABELS, PROPS, RISKS, noun
from export.reference.wording import TEXT_LABELS, text, title

PRODUCTS = CLOTHING + GOODS
_SYNONYMS = {
    "pants": ("trousers",),
    "t-shirt": ("tee", "tshirt"),
    "shoes": ("sneakers", "footwear"),
    "outwear": ("jacket", "coat", "outwear"),
    "longsleeve": ("longsleeve", "long sleeve shirt"),
    "shirt": ("shirt",),
    "hat": ("cap",),
    "phone": ("phone", "smartphone"),
    "bag": ("bag", "purse"),
    "watch": ("watch",),
    "mug": ("mug", "cup"),
    "lamp": ("lamp",),
}
_QUERIES = ("{}", "a {}", "buy {}", "cheap {} online", "{} for sale", "best {} shop", "{} deals")
# Words that say nothing of the product, where only the image is to decide.
_BLANK_TITLES = ("New in", "Just arrived", "See our offer", "This week only", "")
_BLANK_TEXTS = (
    "Order online.",
    "Ships in two days.",
    "Now 20% off until Sunday.",
    "",
    "Have a look.",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One question about an ad; `label` names what is asked after, for the scores."""

    question: str
    answer: bool
    label: str


@dataclass(frozen=True, slots=True)
class Example:
    """An ad with its checks and, where it has a picture, what that shows in words."""

    ad: Ad
    checks: tuple[Check, ...]
    caption: str | None

    def asking(self, checks: tuple[Check, ...]) -> "Example":
        """The same ad with other questions, and not the one for its caption."""
        return replace(self, checks=checks, caption=None)


def text_examples(count: int, seed: int) -> Iterator[Example]:
    """Ads of words alone; where a picture belongs, its caption often stands in."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        product, colour = _pick(PRODUCTS, rng), _pick(tuple(COLOURS), rng)
        told = _some(TEXT_LABELS, rng, 4)
        shown: tuple[str, ...] = ()
        words: str | None = None
        if rng.random() < 0.5:
            shown = _some(LABELS, rng, 2)
            props = tuple(_pick(tuple(PROPS[k]), rng) for k in shown if k in RISKS)
            flaws = tuple(k for k in shown if k in EXPERIENCE)
            words = caption(Scene(product, colour, props, flaws))
        ad = Ad(title(product, colour, rng), text(product, colour, told, rng), words)
        if words is not None and rng.random() < 0.35:
            ad, told = blank(ad, rng), ()
        labels = set(told) | set(shown)
        checks = (*risk_checks(labels), *relevance_checks(product, colour, rng, 4))
        yield Example(ad, checks, words)


def image_examples(
    count: int, seed: int, silent: float = 0.5
) -> Iterator[tuple[Creative, Example]]:
    """Drawn creatives, a share `silent` of them with words that say nothing.

    Captions are the answers to "caption", and no part of these ads.
    """
    for creative in generate(count, seed):
        rng = np.random.default_rng((seed, creative.ad_id, 1))
        ad = Ad(creative.title, creative.text, "")
        held = set(creative.evident_in)
        if rng.random() < silent:
            ad = blank(ad, rng)
            held = {k for k, where in creative.evident_in.items() if where != "text"}
        scene = creative.scene
        checks = (*risk_checks(held), *relevance_checks(scene.product, scene.colour, rng, 4))
        yield creative, Example(ad, checks, creative.caption)


def photo_example(product: str, classes: tuple[str, ...], seed: int) -> Example:
    """A photo with no words: does it show its class, and does it show another one?"""
    rng = np.random.default_rng((seed, 2))
    other = _pick(tuple(name for name in classes if name != product), rng)
    checks = tuple(
        Check(RELEVANCE.format(query=_query(name, rng)), name == product, "relevance")
        for name in (product, other)
    )
    return Example(Ad("", "", ""), checks, f"a {noun(product)}")


def blank(ad: Ad, rng: np.random.Generator) -> Ad:
    """The ad with words that give nothing away."""
    return replace(ad, title=_pick(_BLANK_TITLES, rng), text=_pick(_BLANK_TEXTS, rng))


def risk_checks(held: set[str]) -> tuple[Check, ...]:
    """One check a label."""
    return tuple(Check(words, label in held, label) for label, words in QUESTIONS.items())


def relevance_checks(
    product: str, colour: str, rng: np.random.Generator, count: int
) -> tuple[Check, ...]:
    """Queries that fit, and queries for another product or another colour, in equal number."""
    checks = []
    for number in range(count):
        fits = number % 2 == 0
        name, tone = product, colour if rng.random() < 0.4 else ""
        if not fits and tone and rng.random() < 0.5:
            tone = _pick(tuple(c for c in COLOURS if c != colour), rng)
        elif not fits:
            name = _pick(tuple(p for p in PRODUCTS if p != product), rng)
        words = f"{tone} {_query(name, rng)}".strip()
        checks.append(Check(RELEVANCE.format(query=words), fits, "relevance"))
    return tuple(checks)


def _query(product: str, rng: np.random.Generator) -> str:
    names = (noun(product), noun(product), *_SYNONYMS.get(product, ()))
    return _pick(_QUERIES, rng).format(_pick(names, rng))


def _some(labels: tuple[str, ...], rng: np.random.Generator, most: int) -> tuple[str, ...]:
    """None to `most` of `labels`: far more than real ads break, so that a yes is not rare."""
    count = int(rng.integers(most + 1))
    return tuple(labels[i] for i in rng.choice(len(labels), size=count, replace=False))


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
