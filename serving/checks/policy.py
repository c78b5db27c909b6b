"""What is asked of the model and what its answer means: prompts, calibration, thresholds.

In: a bundle of kind `llm`, and what a policy's file says beside it. Out: a `Policy` with a version
of its own, since a stored verdict holds for one policy version and one model version only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from export import Bundle
from export.checks import CHECKS_FILE, Affine, Calibration, Checks, Threshold, parse
from export.errors import ExportError
from feature_store.record import CATEGORIES, Flag
from serving.checks.bends import Bent, log_odds
from serving.checks.policy_file import CategoryPart, ModelCalibration, PolicyFile
from serving.errors import ConfigurationError
from serving.llm.asks import Read

DEFAULT = "default"
# Below this much probability on both labels together the model was not answering the question.
LOW_LABEL_MASS = 0.5

Verdict = Literal["allow", "review", "block"]


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. version: `<id>@<version>-<digest>`, another one when anything in it changes.

    checks: the bundle's, with what the file says in place of it. file: what it says besides.
    """

    version: str
    checks: Checks
    file: PolicyFile

    @classmethod
    def of(cls, bundle: Bundle, file: PolicyFile | None = None) -> "Policy":
        """The policy of a file over a bundle; None: as the bundle says. Raises ConfigurationError.

        Texts and examples are not in its prompts yet: see `teaching`.
        """
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
        if file is None:
            file = PolicyFile(id=DEFAULT, version=1)
        return cls(file.name_with(data), _said(checks, file), file)

    @property
    def name(self) -> str:
        return self.file.id

    @property
    def categories(self) -> tuple[str, ...]:
        """The risk categories that are asked about."""
        return tuple(self.checks.prompts.risk)

    @property
    def routed(self) -> list[str]:
        """What its router may decide before the model."""
        parts = (self.file.risk or {}).values()
        tasks = {
            "relevance": self.file.relevance.router is not None,
            "risk": bool(parts) and all(part.router is not None for part in parts),
        }
        return [task for task, routes in tasks.items() if routes]

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


def _said(checks: Checks, file: PolicyFile) -> Checks:
    """A bundle's checks with a policy's calibration, thresholds and choice of categories."""
    prompts = checks.prompts
    parts = dict.fromkeys(prompts.risk, CategoryPart()) if file.risk is None else file.risk
    unknown = sorted(set(parts) - set(prompts.risk))
    if unknown:
        raise ConfigurationError(
            f"policy {file.id}: risk: the language model is not asked about {unknown}; "
            f"expected some of {sorted(prompts.risk)}"
        )
    calibration, thresholds = dict(checks.calibration.risk), dict(checks.thresholds)
    for name, part in parts.items():
        if part.calibration is not None:
            calibration[name] = _curve(part.calibration)
        if part.thresholds is not None:
            thresholds[name] = Threshold(part.thresholds.review, part.thresholds.block)
    relevance = checks.calibration.relevance
    if (own := file.relevance.calibration) is not None:
        relevance = _curve(own)
    return replace(
        checks,
        prompts=replace(prompts, risk={name: prompts.risk[name] for name in parts}),
        calibration=Calibration(relevance, {name: calibration[name] for name in parts}),
        thresholds={name: thresholds[name] for name in parts},
        enforce=checks.enforce if file.enforce is None else file.enforce,
    )


def _curve(found: ModelCalibration) -> Affine:
    return Bent(found.scale, found.bias, found.bends)


def probability(read: Read, affine: Affine) -> float:
    """Calibrated P(yes). `read` holds (yes, no)."""
    yes, no = read.logprobs
    logit = log_odds(affine, yes - no)
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
