"""What `/v1/checks` is asked and answers, between JSON and records.

In: request bodies. Out: rows that are ads, ids, or the error of one; and back, results or problems
in the same order, with what made the answer less than what was asked.
"""

import base64
import binascii
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from export.prompts import normalise_query
from serving.checks.judge import Judged
from serving.checks.policy import LOW_LABEL_MASS
from serving.checks.subjects import Subject, Subjects, inline
from serving.checks.verdicts import Relevance, Risk
from serving.deadline import Deadline, header_seconds
from serving.errors import (
    InvalidContentError,
    InvalidImageError,
    InvalidRequestError,
    ServingError,
)
from serving.ingest.ads import make_ad
from serving.lookup.rows import parse_id
from serving.schema import CheckAd

MAX_ADS = 256
MAX_QUERY = 1_000  # characters
DEFAULT_S = 5.0
# Problems that are the service's, not the ad's: they make the whole answer a degraded one.
_OURS = {
    "unavailable": "llm",
    "overloaded": "llm",
    "deadline-exceeded": "deadline",
    "internal": "llm",
}
Row = int | Subject | ServingError


def rows(ad_ids: Sequence[int | str] | None, ads: Sequence[CheckAd] | None) -> list[Row]:
    """What is asked about: ids, ads, or the error of one. Raises InvalidRequestError."""
    if (ad_ids is None) == (ads is None):
        raise InvalidRequestError("expected either `ad_ids` or `ads`; send one of them")
    given: Sequence[Any] = ad_ids if ad_ids is not None else ads or ()
    if not 1 <= len(given) <= MAX_ADS:
        raise InvalidRequestError(f"expected 1-{MAX_ADS} ads, found {len(given)}")
    read: Callable[[Any], Row] = _ad if ads is not None else parse_id
    return [_tried(read, one) for one in given]


async def subjects(stored: Subjects, asked: Sequence[Row]) -> list[Subject | ServingError]:
    """The ads of rows, in order; those that are ids are read. Raises UnavailableError."""
    ids = [row for row in asked if isinstance(row, int)]
    found = iter(await stored.read(ids)) if ids else iter(())
    return [next(found) if isinstance(row, int) else row for row in asked]


def image(data: str) -> bytes:
    """A base64 image. Raises InvalidImageError."""
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidImageError(f"image: expected base64: {error}") from error


def query(text: str) -> str:
    """A query that asks something. Raises InvalidContentError."""
    if len(text) > MAX_QUERY:
        raise InvalidContentError(
            f"query: expected at most {MAX_QUERY:,} characters, found {len(text):,}"
        )
    found = normalise_query(text)
    if not found:
        raise InvalidContentError("query: expected words to compare ads with; found none")
    return found


def deadline(asked_ms: float | None, header: str | None) -> Deadline:
    """The sooner of the body's deadline (default 5 s) and Serve's header."""
    seconds = header_seconds(header)
    mine = Deadline.after(DEFAULT_S if asked_ms is None else asked_ms / 1000)
    return mine.sooner(None if seconds is None else Deadline.after(seconds))


def relevance_result(ad_id: int | None, judged: Judged[Relevance]) -> dict[str, Any]:
    """One row of a relevance answer."""
    value = judged.value
    return {
        "ad_id": ad_id,
        "score": value.score,
        "label": value.label,
        "source": judged.source,
        "label_mass": value.label_mass,
        "truncated": value.cut,
    }


def risk_result(ad_id: int | None, judged: Judged[Risk], policy_version: str) -> dict[str, Any]:
    """One row of a risk answer."""
    value = judged.value
    return {
        "ad_id": ad_id,
        "verdict": value.verdict,
        "categories": dict(value.categories),
        "source": judged.source,
        "policy_version": policy_version,
        "label_mass": value.label_mass,
        "truncated": value.cut,
    }


def problem(ad_id: int | None, error: ServingError) -> dict[str, Any]:
    """The row of an ad without a verdict."""
    return {"ad_id": ad_id, "problem": error.problem()}


def degraded(
    errors: Sequence[ServingError], masses: Sequence[float], notes: Mapping[str, str]
) -> list[dict[str, str]] | None:
    """What makes the whole answer less than what was asked; None when nothing does."""
    if not errors and not notes and min(masses, default=1.0) >= LOW_LABEL_MASS:
        return None
    ours = [error for error in errors if error.slug in _OURS]
    counts = Counter(_OURS[error.slug] for error in ours)
    reasons = {_OURS[error.slug]: error.detail for error in ours}
    found = [
        {"what": what, "reason": f"{count} ads without the model's verdict: {reasons[what]}"}
        for what, count in counts.items()
    ]
    if low := sum(mass < LOW_LABEL_MASS for mass in masses):
        reason = f"{low} answers hardly were one (label_mass under {LOW_LABEL_MASS})"
        found.append({"what": "label_mass", "reason": reason})
    found += [{"what": what, "reason": reason} for what, reason in notes.items()]
    return found or None


def _ad(ad: CheckAd) -> Subject:
    picture = None if ad.image is None else image(ad.image)
    return inline(make_ad(0, ad.title or "", ad.text or "", picture))


def _tried(read: Callable[[Any], Row], one: Any) -> Row:
    try:
        return read(one)
    except ServingError as error:
        return error
