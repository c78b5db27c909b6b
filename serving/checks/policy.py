"""What is asked of the model and what its answer means: prompts, calibration, thresholds.

In: a bundle of kind `llm`. Out: a `Policy` with a version of its own, since a stored verdict holds
for one policy version and one model version only.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from export import Bundle
from export.checks import CHECKS_FILE, Affine, Checks, parse
from export.errors import ExportError
from feature_store.record import CATEGORIES, Flag
from serving.errors import ConfigurationError, NotFoundError
from serving.llm.asks import Read

DEFAULT = "default"
# Below this much probability on both labels together the model was not answering the question.
LOW_LABEL_MASS = 0.5

Verdict = Literal["allow", "review", "block"]


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. version: `<id>@<digest>`, another one when anything in it changes."""

    name: str
    version: str
    checks: Checks

    @classmethod
    def of(cls, bundle: Bundle) -> "Policy":
        """The policy that a bundle brings. Raises ConfigurationError."""
        try:
            data = bundle.file(CHECKS_FILE).read_bytes()
            checks = parse(data)
        except ExportError as error:
            raise ConfigurationError(f"the checks' bundle cannot be used: {error}") from error
        unknown = sorted(set(checks.prompts.risk) - set(CATEGORIES))
        if unknown:
            raise ConfigurationError(
                f"the checks' bundle names categories {unknown}; records have bits for "
                f"{sorted(CATEGORIES)}"
            )
        return cls(DEFAULT, f"{DEFAULT}@{hashlib.sha256(data).hexdigest()[:12]}", checks)

    @property
    def categories(self) -> tuple[str, ...]:
        """The risk categories that are asked about."""
        return tuple(self.checks.prompts.risk)

    def check_name(self, name: str | None) -> None:
        """Raises NotFoundError unless `name` is None or this policy, with or without version."""
        if name not in (None, self.name, self.version):
            raise NotFoundError(
                f"no policy {name!r}; expected {self.name!r} or {self.version!r}, or leave it out"
            )

    def verdict(self, categories: Mapping[str, float], label_mass: float) -> Verdict:
        """From calibrated probabilities; a read that was hardly an answer is reviewed."""
        limits = self.checks.thresholds
        if label_mass < LOW_LABEL_MASS:
            return "review"
        if any(p >= limits[name].block for name, p in categories.items()):
            return "block"
        over = any(p >= limits[name].review for name, p in categories.items())
        return "review" if over else "allow"

    def flags(self, categories: Mapping[str, float], verdict: Verdict) -> Flag:
        """The bits a verdict sets: of the categories that block, or REVIEW, or both."""
        if verdict == "allow":
            return Flag(0)
        if verdict == "review":
            return Flag.REVIEW
        found = Flag(0) if self.checks.enforce else Flag.REVIEW
        for name, probability in categories.items():
            if probability >= self.checks.thresholds[name].block:
                found |= CATEGORIES[name]
        return found


def probability(read: Read, affine: Affine) -> float:
    """Calibrated P(yes): affine in logit space. `read` holds (yes, no)."""
    yes, no = read.logprobs
    logit = affine.scale * (yes - no) + affine.bias
    # The form that cannot overflow.
    p = 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
    return round(p, 6)


def label_mass(read: Read) -> float:
    """Probability of both labels together, before calibration."""
    return round(min(1.0, sum(math.exp(logprob) for logprob in read.logprobs)), 6)


def model_version(bundle: Bundle) -> str:
    """Names the model in stored verdicts: version, and a hash of what it computes."""
    return f"{bundle.manifest.version}-{bundle.bundle_hash[:12]}"


def label_ids(bundle: Bundle) -> tuple[int, int]:
    """Token ids of (yes, no)."""
    labels: Any = bundle.manifest.metadata["label_ids"]
    return int(labels["yes"]), int(labels["no"])
