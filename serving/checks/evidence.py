"""What a verdict is made of, before any calibration or threshold: what onboarding learns from.

In: subjects and a policy. Out: the model's log-odds by question, the vector of each ad and, with a
query, the cosine between both. Nothing is stored, and nothing stored is read.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from export.checks import Affine, Calibration
from serving.checks.duplicates import words_of
from serving.checks.policy import Policy
from serving.checks.router import logit
from serving.checks.subjects import Subject
from serving.checks.understander import LATER, Understander
from serving.checks.vectors import Space, Vector
from serving.deadline import Deadline
from serving.errors import DeadlineExceededError, ServingError

RELEVANCE = "relevance"


@dataclass(frozen=True, slots=True)
class Evidence:
    """log_odds: log p(yes) - log p(no), by category or of `relevance`. vector: (D,) float32.

    words: checksums of the ad's words, as near copies are compared by.
    """

    log_odds: dict[str, float]
    label_mass: float
    words: frozenset[int]
    vector: Vector | None
    cosine: float | None
    encoder: str | None


def uncalibrated(policy: Policy) -> Policy:
    """The policy with probabilities as the model gives them."""
    plain = Calibration(Affine(), dict.fromkeys(policy.categories, Affine()))
    return replace(policy, checks=replace(policy.checks, calibration=plain))


async def gather(
    model: Understander,
    space: Space | None,
    subjects: Sequence[Subject],
    query: str | None,
    deadline: Deadline,
) -> list[Evidence | ServingError]:
    """Evidence of each subject, in order; `model`: of an `uncalibrated` policy."""

    async def one(subject: Subject) -> Evidence | ServingError:
        try:
            async with asyncio.timeout(deadline.remaining_s):
                return await _one(model, space, subject, query)
        except ServingError as error:
            return error
        except TimeoutError:
            return DeadlineExceededError("the model did not answer in time; ask for fewer at once")

    return list(await asyncio.gather(*map(one, subjects)))


async def _one(
    model: Understander, space: Space | None, subject: Subject, query: str | None
) -> Evidence:
    if query is None:
        risk = await model.risk(subject, LATER)
        odds, mass = {n: logit(p) for n, p in risk.categories.items()}, risk.label_mass
    else:
        found = await model.relevance(query, subject, LATER)
        odds, mass = {RELEVANCE: logit(found.score)}, found.label_mass
    words = words_of(subject)
    if space is None:
        return Evidence(odds, mass, words, None, None, None)
    vector, encoder = await space.ad(subject)
    asked = None if query is None else (await space.query(query))[0]
    cosine = None if asked is None else float(asked @ vector)
    return Evidence(odds, mass, words, vector, cosine, encoder)
