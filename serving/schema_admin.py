"""HTTP shapes of `/v1/checks` for those who run it: people's decisions, policies, evidence.

Like those of `schema`: frozen, unknown fields are refused.
"""

from typing import Literal

from pydantic import Field

from serving.schema import AdId, CheckAd, CheckProblem, Shape


class OverrideRequest(Shape):
    """What a person says of an ad: a verdict on its risk, or whether it answers a query."""

    verdict: Literal["allow", "review", "block"] | None = None
    categories: dict[str, bool] = Field(default_factory=dict)
    query: str | None = None
    relevant: bool | None = None
    reason: str = Field("", max_length=1000)


class OverrideResponse(Shape):
    """`replicated`: replicas of the store that have a block or its end, null where there is none.

    `copies`: how many near copies were sent to review.
    """

    ad_id: AdId
    held: bool
    replicated: int | None
    copies: int


class Overrides(Shape):
    """What people have said, as lines of onboarding's examples; `complete`: none was left out."""

    overrides: list[dict[str, object]]
    complete: bool


class EvidenceRequest(Shape):
    """Either ids of stored ads or ads; with a `query` relevance is asked about, without it risk."""

    ad_ids: list[AdId] | None = None
    ads: list[CheckAd] | None = None
    query: str | None = None
    policy: str | None = None
    deadline_ms: float | None = Field(None, gt=0, le=60_000)


class EvidenceResult(Shape):
    """`log_odds`: log p(yes) - log p(no) by question, uncalibrated; `vector`: float16, base64;
    `words`: checksums of the ad's words (CRC-32)."""

    ad_id: AdId | None
    log_odds: dict[str, float]
    label_mass: float
    words: list[int]
    vector: str | None
    cosine: float | None


class EvidenceResponse(Shape):
    """`encoder`: revision of what made the vectors, null while it is away."""

    results: list[EvidenceResult | CheckProblem]
    encoder: str | None
    policy_version: str


class PolicyState(Shape):
    """A policy as it holds now; `routed`: what its router may decide.

    `calibration`: scale and bias by question; `thresholds`: review and block by category.
    """

    id: str
    version: str
    categories: list[str]
    enforce: bool
    routed: list[str]
    calibration: dict[str, tuple[float, float]]
    thresholds: dict[str, tuple[float, float]]


class Policies(Shape):
    """The policies, and what is wrong with which file."""

    policies: list[PolicyState]
    problems: dict[str, str]
