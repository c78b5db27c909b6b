"""All HTTP shapes of `/v1` in one place, but for operators' (`schema_admin`); `/v2` is the Open
Inference Protocol's own.

Unknown fields are refused. The lookup route reads and writes the same shapes without building
these objects (rows are too many); they are then only its documentation.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

MAX_AD_ID = 2**63 - 1
MAX_LOOKUP_IDS = 100_000
MAX_BATCH_ITEMS = 1_000

# 8 x 8 px, red: small enough for a documentation page, and it works.
EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mO8IyfHgA0wMeAAg1MCAOBWAShOAhDlAAAAAE"
    "lFTkSuQmCC"
)

# Checked by `rows.parse_id` alone, so that every route takes and refuses the same ids.
AdId = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "description": "integer 1..2^63-1, as a number or decimal string",
        }
    ),
]
VectorType = Literal["float32", "float16"]
Codes = Annotated[list[int], Field(min_length=6, max_length=6)]


class Shape(BaseModel):
    """Base of all shapes: frozen, unknown fields and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Problem(BaseModel):
    """Problem details, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


class Degraded(Shape):
    """One way in which an answer is less than what was asked."""

    what: str
    reason: str


class LookupRequest(Shape):
    """Ads to read; `version` null: the active one; `deadline_ms` null: 50, or 1 per 500 ids."""

    ad_ids: list[AdId] = Field(min_length=1, max_length=MAX_LOOKUP_IDS)
    version: str | None = None
    deadline_ms: float | None = Field(None, gt=0)


class LookupResponse(Shape):
    """One row an id, in the order asked; codes are null unless HIT or STALE."""

    version: str
    codes: list[Codes | None]
    status: list[str]
    flags: list[list[str]]
    degraded: list[Degraded] | None


class Risk(Shape):
    """A risk verdict; null while the ad waits for one (flag PENDING)."""

    verdict: str | None
    categories: dict[str, float]


class AdResponse(Shape):
    """An ad that is now in the store."""

    ad_id: AdId
    version: str
    codes: Codes
    margin: list[float]
    flags: list[str]
    risk: Risk


class BatchItem(Shape):
    """One line of a batch's manifest; `image` names the form's part."""

    ad_id: AdId
    image: str | None = None
    title: str | None = None
    text: str | None = None


class BatchProblem(Shape):
    """The answer to a line of a batch that failed; `line` counts from 1."""

    ad_id: AdId | None
    line: int
    problem: Problem


class BlockRequest(Shape):
    """Why an ad is taken down or let through again."""

    reason: str = Field("", max_length=1000)


class BlockResponse(Shape):
    """`replicated`: how many replicas of the store have the change; 0 says that none has."""

    ad_id: AdId
    blocked: bool
    replicated: int


class DeleteResponse(Shape):
    """An ad that has ended, and what lookups say of it now."""

    ad_id: AdId
    status: str


class EmbedRequest(Shape):
    """Either images (base64) or texts; `dtype`: of the vectors that come back."""

    images: list[str] | None = None
    texts: list[str] | None = None
    dtype: VectorType = "float32"


class EmbedResponse(Shape):
    """Unit rows of the shared space."""

    vectors: list[list[float]]
    model: str
    version: str


class TokenizeRequest(Shape):
    """Either fused vectors, or images and texts as pairs by position (null: missing side)."""

    vectors: list[list[float]] | None = None
    images: list[str | None] | None = None
    texts: list[str | None] | None = None


class TokenizeResponse(Shape):
    """Semantic IDs and how clear each choice was."""

    codes: list[Codes]
    margin: list[list[float]]
    version: str


class CheckAd(Shape):
    """An ad sent along; `image` is base64."""

    title: str | None = None
    text: str | None = None
    image: str | None = None


class RelevanceRequest(Shape):
    """Either ids of stored ads or ads; `deadline_ms` null: 5,000."""

    query: str
    ad_ids: list[AdId] | None = None
    ads: list[CheckAd] | None = None
    policy: str | None = None
    deadline_ms: float | None = Field(None, gt=0, le=60_000)


class RiskRequest(Shape):
    """Either ids of stored ads or ads; `policy` null: the default one."""

    ad_ids: list[AdId] | None = None
    ads: list[CheckAd] | None = None
    policy: str | None = None
    deadline_ms: float | None = Field(None, gt=0, le=60_000)


class CaptionRequest(Shape):
    """Either an image (base64) or the id of a stored ad."""

    image: str | None = None
    ad_id: AdId | None = None
    deadline_ms: float | None = Field(None, gt=0, le=60_000)


class CheckProblem(Shape):
    """The answer for an ad that has no verdict."""

    ad_id: AdId | None
    problem: Problem


class RelevanceResult(Shape):
    """Calibrated probability that the ad answers the query; `truncated`: fields cut short."""

    ad_id: AdId | None
    score: float
    label: str
    source: str
    label_mass: float
    truncated: list[str]


class RiskResult(Shape):
    """`categories`: calibrated probability by category; `truncated`: fields cut short."""

    ad_id: AdId | None
    verdict: str
    categories: dict[str, float]
    source: str
    policy_version: str
    label_mass: float
    truncated: list[str]


class RelevanceResponse(Shape):
    """One result or problem an ad, in order."""

    results: list[RelevanceResult | CheckProblem]
    degraded: list[Degraded] | None


class RiskResponse(Shape):
    """One result or problem an ad, in order."""

    results: list[RiskResult | CheckProblem]
    degraded: list[Degraded] | None


class CaptionResponse(Shape):
    """What the image shows."""

    caption: str
    source: str
