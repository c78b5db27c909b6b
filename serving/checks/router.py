"""What decides the clear cases before the model is asked: a cosine, or a policy's prototypes.

In: unit vectors of one encoder and a policy. Out: a verdict, or None in the band between the two
thresholds, where the model decides. Arithmetic alone: nothing here waits for anything.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from serving.checks.duplicates import Creative
from serving.checks.policy import Policy
from serving.checks.policy_file import Calibration, Prototype
from serving.checks.verdicts import Relevance, Risk

Vector = NDArray[np.float32]
MOST_LOGIT = 30.0


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), bounded so that it cannot overflow."""
    return 1 / (1 + math.exp(-max(-MOST_LOGIT, min(MOST_LOGIT, x))))


def logit(p: float) -> float:
    """The inverse of `sigmoid`, as bounded."""
    low = sigmoid(-MOST_LOGIT)
    p = max(low, min(1 - low, p))
    return math.log(p / (1 - p))


def relevance(policy: Policy, encoder: str, query: Vector, ad: Vector) -> Relevance | None:
    """A clear verdict from the cosine of two vectors (D,); None when the model is to be asked."""
    router = policy.file.relevance.router
    if router is None or router.encoder != encoder:
        return None
    found = by_cosine(policy, router.calibration, float(query @ ad))
    return found if found.score <= router.below or found.score >= router.above else None


def by_cosine(policy: Policy, calibration: Calibration, cosine: float) -> Relevance:
    """What a cosine says, clear or not."""
    score = round(sigmoid(calibration.scale * cosine + calibration.bias), 6)
    labels = policy.checks.labels
    return Relevance(score, (labels.yes if score >= 0.5 else labels.no).strip(), 1.0, (), "router")


def risk(policy: Policy, encoder: str, ad: Vector) -> Risk | None:
    """A clear verdict from the prototypes: one category is blocked for certain, or all are clear.

    ad: as `place` gives it. A policy without a prototype for each category decides nothing here.
    """
    found = prototypes(policy, encoder)
    if len(found) < len(policy.categories):
        return None
    said = {name: score(one, ad) for name, one in found.items()}
    limits = policy.checks.thresholds
    blocked = any(p >= max(found[name].above, limits[name].block) for name, p in said.items())
    unclear = any(found[name].below < p < found[name].above for name, p in said.items())
    if unclear and not blocked:
        return None
    return Risk(policy.verdict(said, 1.0), said, 1.0, (), "router")


def place(policy: Policy, ad: Creative) -> Vector:
    """What the prototypes look at: the ad's vector, or what the policy's network makes of it."""
    network = policy.file.network
    return ad.vector if network is None else network(ad.vector, ad.words)


def knows(policy: Policy, words: Collection[int]) -> bool:
    """Whether the prototypes can tell what these words do; a vector holds all of them."""
    network = policy.file.network
    return network is None or network.knows(words)


def prototypes(policy: Policy, encoder: str) -> Mapping[str, Prototype]:
    """The policy's prototypes that were fitted on this encoder, by category."""
    if policy.file.risk is None:
        return {}
    parts = policy.file.risk.items()
    return {n: p.router for n, p in parts if p.router is not None and p.router.encoder == encoder}


def score(prototype: Prototype, ad: Vector) -> float:
    """Probability of one category."""
    return round(sigmoid(float(prototype.vector @ ad) + prototype.bias), 6)
