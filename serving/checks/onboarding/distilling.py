"""A router taught by the model's own verdicts: a small network that says what the model would.

In: many ads (thousands) with vectors, words and the model's calibrated probabilities. Out: a policy
with a network and a prototype for each category, and what it is worth. Verdicts cost no labels:
what the model has read is enough. An eighth of the ads is held out to say where the router is sure,
another eighth to say how often it errs there.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.checks.onboarding import network_fit, scoring
from serving.checks.onboarding.fitting import Array, Labels, sigmoid
from serving.checks.policy_file import CategoryPart, PolicyFile, Prototype
from serving.checks.policy_network import PRESENT, Network
from serving.checks.router import logit

Matrix = NDArray[np.float32]

SEEN = 5  # times that a word must have been there to be known
PARTS, EDGES, AUDITED = 8, 7, 6  # of so many parts, the one for thresholds and the one for figures
# Of as many as the model flags in the held-out ads, how many may lie below the lower threshold, and
# how many that it does not block above the upper one.
MISSED, OVERDONE = 0.02, 0.005
LEAST_FLAGGED = 4  # in the held-out ads, below which a category is not routed


@dataclass(frozen=True, slots=True)
class Verdicts:
    """n ads: vectors (n, D), words, and probabilities (n, C) by category as the model gave them."""

    vectors: Matrix
    words: Sequence[frozenset[int]]
    probabilities: Array

    def part(self, rows: NDArray[np.intp]) -> "Verdicts":
        """Those of some rows."""
        words = [self.words[row] for row in rows.tolist()]
        return Verdicts(self.vectors[rows], words, self.probabilities[rows])


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds (C,) of review and block."""

    review: Array
    block: Array

    def verdicts(self, p: Array) -> NDArray[np.intp]:
        """(n,): 0 allow, 1 review, 2 block, of probabilities (n, C)."""
        at_least: Labels = np.stack([(p >= self.review).any(1), (p >= self.block).any(1)])
        found: NDArray[np.intp] = at_least.sum(0)
        return found


@dataclass(frozen=True, slots=True)
class Worth:
    """On ads that nothing was fitted to. flagged: by the model, by category; au_prc: of the router
    against that. decided: ads that it decides; differ: of these, those that the model decides
    otherwise; wrongly_let, wrongly_kept: allowed though flagged, and the reverse."""

    ads: int
    flagged: dict[str, int]
    au_prc: dict[str, float | None]
    decided: int
    differ: int
    wrongly_let: int
    wrongly_kept: int


def distil(
    file: PolicyFile,
    categories: Sequence[str],
    seen: Verdicts,
    limits: Limits,
    encoder: str,
    advance: Callable[[int], None] = lambda _: None,
) -> PolicyFile:
    """`file` with a router that decides as the model would; the same verdicts give the same."""
    part = np.arange(len(seen.words)) % PARTS
    learned = seen.part(np.flatnonzero((part != EDGES) & (part != AUDITED)))
    counted = Counter(word for words in learned.words for word in words)
    words = np.array(sorted(w for w, times in counted.items() if times >= SEEN), np.uint32)
    above = _odds(learned.probabilities) - _odds(limits.review)
    found = network_fit.fit(_inputs(learned, words), above, advance)
    network = Network.of(words, found.first, found.bias)
    held = seen.part(np.flatnonzero(part == EDGES))
    hidden = _hidden(network, held)
    parts = dict(file.risk or {})
    for at, name in enumerate(categories):
        weights = found.heads[:, at].astype(np.float16).astype(np.float32)
        offset = float(found.offsets[at]) + float(_odds(limits.review[at]))
        said, truth = hidden @ weights + offset, held.probabilities[:, at]
        edges = _edges(said, truth >= limits.review[at], truth >= limits.block[at])
        router = None
        if edges is not None:
            low, high = sigmoid(np.array([edges[0], max(edges[1], float(_odds(limits.block[at])))]))
            router = Prototype(
                encoder=encoder,
                below=round(float(low), 6),
                above=round(float(high), 6),
                weights=Prototype.encode(weights),
                bias=round(offset, 5),
            )
        parts[name] = parts.get(name, CategoryPart()).model_copy(update={"router": router})
    changed = {"risk": parts, "network": network}
    return PolicyFile.model_validate(file.model_copy(update=changed).model_dump())


def worth(file: PolicyFile, seen: Verdicts, limits: Limits) -> Worth | None:
    """What the router of `distil` is worth on the ads that it left; None: a category has none.

    The categories are those of the file, in its order.
    """
    audited = seen.part(np.flatnonzero(np.arange(len(seen.words)) % PARTS == AUDITED))
    parts = file.risk or {}
    routers = [part.router for part in parts.values() if part.router is not None]
    if file.network is None or len(routers) < len(parts):
        return None
    weights = np.stack([router.vector for router in routers], 1)
    said = _hidden(file.network, audited) @ weights + np.array([router.bias for router in routers])
    p = sigmoid(said.astype(float))
    below, above = (np.array([getattr(r, name) for r in routers]) for name in ("below", "above"))
    blocked = (p >= np.maximum(above, limits.block)).any(1)
    known = np.array([file.network.knows(words) for words in audited.words], bool)
    decided = known & (blocked | ~((p > below) & (p < above)).any(1))
    router, model = limits.verdicts(p), limits.verdicts(audited.probabilities)
    flagged: Labels = audited.probabilities >= limits.review
    return Worth(
        ads=len(p),
        flagged={name: int(flagged[:, at].sum()) for at, name in enumerate(parts)},
        au_prc={
            name: scoring.average_precision(p[:, at], flagged[:, at])
            for at, name in enumerate(parts)
        },
        decided=int(decided.sum()),
        differ=int((decided & (router != model)).sum()),
        wrongly_let=int((decided & (router == 0) & (model > 0)).sum()),
        wrongly_kept=int((decided & (router > 0) & (model == 0)).sum()),
    )


def _inputs(seen: Verdicts, words: NDArray[np.uint32]) -> Matrix:
    place = {int(word): row for row, word in enumerate(words)}
    there = np.zeros((len(seen.words), len(words)), np.float32)
    for row, several in enumerate(seen.words):
        there[row, [place[word] for word in several if word in place]] = PRESENT
    return np.hstack([seen.vectors, there])


def _hidden(network: Network, seen: Verdicts) -> Matrix:
    rows = [network(v, w) for v, w in zip(seen.vectors, seen.words, strict=True)]
    return np.stack(rows) if rows else np.zeros((0, network.width), np.float32)


def _odds(p: Array) -> Array:
    found: Array = np.vectorize(logit, otypes=[float])(p)
    return found


def _edges(said: Matrix, flagged: NDArray[np.bool_], blocked: NDArray[np.bool_]) -> Array | None:
    """Log-odds below which nothing is flagged and above which all is blocked; None: too few."""
    if flagged.sum() < LEAST_FLAGGED or blocked.all():
        return None
    missed, overdone = int(MISSED * flagged.sum()), int(OVERDONE * flagged.sum())
    yes, no = np.sort(said[flagged]), np.sort(said[~blocked])
    found = float(yes[missed]), float(no[-1 - min(overdone, len(no) - 1)])
    return np.array([min(found), max(found)])
