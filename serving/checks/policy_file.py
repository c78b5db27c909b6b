"""The shape of `policies/<id>.yaml`: what an ads platform decides about its checks, as data.

In: YAML. Out: a `PolicyFile`; whatever it leaves out is as the language model's bundle says. Files
are written by hand or by `python -m serving checks onboard`.
"""

import base64
import hashlib
import re
from typing import Annotated, Any

import numpy as np
import orjson
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from serving.checks import bends, policy_yaml
from serving.checks.policy_network import Network

VERSION_DIGITS = 12
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
Probability = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Calibration(_Part):
    """p = sigmoid(scale * x + bias), x a log-odds or a cosine."""

    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    bias: Finite = 0.0


class ModelCalibration(Calibration):
    """The same for the model's own log-odds; bends: (x, what is added there), see `bends`."""

    bends: tuple[tuple[Finite, Finite], ...] = Field(default=(), max_length=64)

    @model_validator(mode="after")
    def _rises(self) -> "ModelCalibration":
        if not bends.rises(self.scale, self.bends):
            raise ValueError("expected bends whose x ascend and under which the curve never falls")
        return self


class Thresholds(_Part):
    """Calibrated probabilities from which on an ad is reviewed, or blocked."""

    review: Annotated[float, Field(gt=0, le=1)]
    block: Annotated[float, Field(gt=0, le=1)]

    @model_validator(mode="after")
    def _ordered(self) -> "Thresholds":
        if self.review > self.block:
            raise ValueError("expected review <= block")
        return self


class Band(_Part):
    """The router's two thresholds: what lies strictly between them is asked of the model.

    encoder: revision of the encoders that it was fitted on; with others served it says nothing.
    """

    encoder: str = Field(min_length=1)
    below: Probability
    above: Probability

    @model_validator(mode="after")
    def _ordered(self) -> "Band":
        if self.below >= self.above:
            raise ValueError("expected below < above")
        return self


class CosineRouter(Band):
    """Relevance from the cosine of query and ad; thresholds on the calibrated probability."""

    calibration: Calibration


class Prototype(Band):
    """One category as a linear probe over an ad's unit vector (D,), or over the policy's network.

    weights: float16 little-endian, base64.
    """

    weights: str
    bias: Finite

    @field_validator("weights")
    @classmethod
    def _decodes(cls, value: str) -> str:
        if not np.isfinite(_vector(value)).all():
            raise ValueError("expected finite weights")
        return value

    @property
    def vector(self) -> NDArray[np.float32]:
        """The weights (D,)."""
        return _vector(self.weights)

    @staticmethod
    def encode(weights: NDArray[np.float32]) -> str:
        """Weights (D,) as they stand in the file."""
        return base64.b64encode(weights.astype("<f2").tobytes()).decode()


class RelevancePart(_Part):
    """How relevance is judged; what is left out is the bundle's."""

    calibration: ModelCalibration | None = None
    router: CosineRouter | None = None


class CategoryPart(_Part):
    """How one category of risk is judged; what is left out is the bundle's."""

    calibration: ModelCalibration | None = None
    thresholds: Thresholds | None = None
    router: Prototype | None = None


class Example(_Part):
    """An ad that the model is shown with its answer; `category` null: one of relevance."""

    title: str = Field(default="", max_length=1_000)
    text: str = Field(default="", max_length=2_000)
    query: str | None = Field(default=None, max_length=1_000)
    category: str | None = None
    label: bool

    @model_validator(mode="after")
    def _one_task(self) -> "Example":
        if (self.query is None) == (self.category is None):
            raise ValueError("expected a query (relevance) or a category (risk)")
        return self


class Duplicates(_Part):
    """When a near copy inherits a verdict.

    cosine: of the two contents' vectors, at least. margin: how far in log-odds the verdict must be
    from any threshold that would make another of it. moves: how far at most a prototype may have
    moved towards a category; words: the same where a copy has words that the other lacks.
    """

    cosine: Annotated[float, Field(gt=0, le=1)] = 0.93
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    moves: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    words: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


class PolicyFile(_Part):
    """One policy. risk null: every category of the bundle; otherwise those that are named.

    text: what the model reads before every ad. example_end: what parts an example from what comes
    next, such as the end of a chat's turn and the beginning of another. network: what prototypes
    look at; None: the ad's vector itself.
    """

    id: str = Field(pattern=f"^{NAME.pattern}$")
    version: int = Field(ge=1, le=10**9)
    text: str = Field(default="", max_length=20_000)
    examples: tuple[Example, ...] = Field(default=(), max_length=32)
    example_end: str = Field(default="\n", max_length=200)
    enforce: bool | None = None
    relevance: RelevancePart = RelevancePart()
    risk: dict[str, CategoryPart] | None = Field(default=None, min_length=1)
    duplicates: Duplicates | None = Duplicates()
    network: Network | None = None

    @model_validator(mode="after")
    def _one_space(self) -> "PolicyFile":
        routers = [part.router for part in (self.risk or {}).values() if part.router is not None]
        if self.network is not None and any(
            len(router.vector) != self.network.width for router in routers
        ):
            raise ValueError(f"expected prototypes of the network's {self.network.width} numbers")
        return self

    def name_with(self, basis: bytes) -> str:
        """`<id>@<version>-<digest>`; `basis`: the other bytes that its verdicts follow from."""
        digest = hashlib.sha256(basis)
        digest.update(orjson.dumps(self.model_dump(), option=orjson.OPT_SORT_KEYS))
        return f"{self.id}@{self.version}-{digest.hexdigest()[:VERSION_DIGITS]}"


def parse(data: bytes, where: str) -> PolicyFile:
    """A policy's file. Raises ConfigurationError with file, line and field."""
    return policy_yaml.read(data, PolicyFile, where)


def dump(policy: PolicyFile) -> bytes:
    """The file of a policy; what is as by default is left out."""
    value: dict[str, Any] = policy.model_dump(exclude_defaults=True, mode="json")
    data: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return data.encode()


def _vector(weights: str) -> NDArray[np.float32]:
    try:
        return np.frombuffer(base64.b64decode(weights, validate=True), "<f2").astype(np.float32)
    except ValueError as error:
        raise ValueError(f"expected float16 numbers in base64: {error}") from error
