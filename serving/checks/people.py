"""What people decide, carried out: kept, shown in the record, and told to near copies.

In: a decision about an ad. Out: the decision under its keys, flags and marks in the feature store.
The routes are in `override_routes.py`.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from redis.exceptions import RedisError

from export.prompts import normalise_query
from feature_store import Flag
from feature_store.errors import FeatureStoreError
from feature_store.record import CATEGORIES
from serving.checks.opening import Bench
from serving.checks.overrides import Decision, human_flags
from serving.checks.subjects import Subject
from serving.checks.verdicts import Relevance, Risk
from serving.errors import (
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)
from serving.schema_admin import OverrideRequest

_OWN = Flag.PENDING | Flag.REVIEW | Flag.DUPLICATE | Flag.HUMAN | Flag(sum(CATEGORIES.values()))


@dataclass(frozen=True, slots=True)
class Done:
    """replicated: replicas of the store that have a mark's change; None where no mark changed."""

    replicated: int | None
    copies: int = 0


def decision(ad_id: int, asked: OverrideRequest, labels: Sequence[str]) -> Decision:
    """What a request says. labels: of relevance, (yes, no). Raises InvalidRequestError."""
    if (asked.verdict is None) == (asked.relevant is None):
        raise InvalidRequestError("expected either `verdict`, or `query` with `relevant`")
    if asked.relevant is not None:
        query = normalise_query(asked.query or "")
        if not query or asked.categories:
            raise InvalidRequestError("`relevant` goes with a `query`, and without `categories`")
        label = labels[0] if asked.relevant else labels[1]
        value = Relevance(float(asked.relevant), label.strip(), 1.0, (), "human")
        return Decision(ad_id, value, query, asked.reason)
    unknown = sorted(set(asked.categories) - set(CATEGORIES))
    if asked.query is not None or unknown:
        raise InvalidRequestError(
            f"categories: found {unknown}; expected some of {sorted(CATEGORIES)}"
            if unknown
            else "`query` goes with `relevant`, not with a verdict on risk"
        )
    said = {name: float(yes) for name, yes in asked.categories.items()}
    return Decision(
        ad_id, Risk(asked.verdict or "review", said, 1.0, (), "human"), "", asked.reason
    )


async def decide(bench: Bench, made: Decision) -> Done:
    """Keep a decision and make the record what it says.

    Raises NotFoundError for an ad without content, UnavailableError.
    """
    (subject,) = await bench.subjects.read([made.ad_id])
    if not isinstance(subject, Subject):
        raise subject
    await bench.overrides.put(made, subject)
    if isinstance(made.value, Relevance):
        return Done(None)
    blocked = made.value.verdict == "block"
    flags = human_flags(made.value)
    ids = [made.ad_id]
    try:
        if blocked:  # before the flags: no lookup serves it in between
            marked = await bench.store.block(ids, made.reason, source="human")
        else:
            await bench.store.unblock(ids, source="verdict")
            marked = await bench.store.unblock(ids, source="human")
        await bench.store.update_flags(ids, int(flags), int(_OWN & ~flags))
        with suppress(OverloadedError):
            # A verdict that was on its way may still be written: once more, by whoever settles it.
            await bench.owed.add(ids)
    except (FeatureStoreError, RedisError) as error:
        raise UnavailableError(f"the feature store failed: {error}") from error
    copies = 0
    if bench.spreading is not None:
        copies = await bench.spreading.judged(subject, bench.judge.policy, blocked=blocked)
    return Done(marked.replicated, copies)


async def withdraw(bench: Bench, ad_id: int, query: str) -> Done:
    """Forget a decision; one on risk is judged anew. Raises NotFoundError, UnavailableError."""
    if not await bench.overrides.withdraw(ad_id, query):
        raise NotFoundError(f"nobody has decided on ad {ad_id}" + (f" and {query!r}" * bool(query)))
    if query:
        return Done(None)
    try:
        await bench.owed.add([ad_id])  # first: what is on its way for the old word counts no more
        await bench.store.update_flags([ad_id], int(Flag.PENDING), int(_OWN & ~Flag.PENDING))
        marked = await bench.store.unblock([ad_id], source="human")
    except (FeatureStoreError, RedisError) as error:
        raise UnavailableError(f"the feature store failed: {error}") from error
    return Done(marked.replicated)
