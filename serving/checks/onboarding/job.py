"""`python -m serving checks onboard POLICY`: labelled ads in, a new version of the policy out.

In: a policy's name, examples and a running service, which judges them as they are. Out: the
policy's file, replaced in one step, and held-out figures. The model is asked and never changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from serving.checks.evidence import RELEVANCE
from serving.checks.onboarding import learning
from serving.checks.onboarding.examples import Example, questions
from serving.checks.onboarding.files import standing
from serving.checks.onboarding.fitting import Line
from serving.checks.onboarding.learning import Report
from serving.checks.onboarding.service import Evidence, Gathered, Service
from serving.checks.policy_file import (
    CategoryPart,
    PolicyFile,
    RelevancePart,
    Thresholds,
)
from serving.errors import MainJobError
from serving.up.progress import step


def onboard(
    service: Service, name: str, examples: Sequence[Example], folder: Path
) -> tuple[PolicyFile, list[Report]]:
    """Fit and write a policy. Raises MainJobError, ConfigurationError."""
    there = standing(service, name, folder)
    asked, now = there.asked, there.now
    risk = [example for example in examples if example.labels]
    relevance = [example for example in examples if example.query is not None]
    with step(f"asking about {name}", len(risk) + len(relevance)) as advance:
        of_risk = service.gather(risk, lambda _: None, asked, advance)
        of_relevance = service.gather(relevance, lambda one: one.query, asked, advance)
    if problems := of_risk.problems + of_relevance.problems:
        raise MainJobError(f"{len(problems)} examples could not be judged: {problems[0]}")
    file = there.file or PolicyFile(id=name, version=1, risk=_parts(questions(risk)))
    reports: list[Report] = []
    with step(f"fitting {name}"):
        if risk:
            file = _with_risk(file, now, risk, of_risk, reports)
        if relevance:
            file = _with_relevance(file, now, relevance, of_relevance, reports)
    return there.write(file), reports


def _parts(names: Sequence[str]) -> dict[str, CategoryPart] | None:
    return {name: CategoryPart() for name in names} or None


def _with_risk(
    file: PolicyFile,
    now: Mapping[str, Any],
    examples: Sequence[Example],
    gathered: Gathered,
    reports: list[Report],
) -> PolicyFile:
    parts = dict(file.risk or _parts(now["categories"]) or {})
    if file.network is not None:  # its prototypes look at something else than those that are fitted
        parts = {name: part.model_copy(update={"router": None}) for name, part in parts.items()}
    for name in questions(examples):
        places = [p for p, example in enumerate(examples) if name in example.labels]
        labels = np.array([examples[p].labels[name] for p in places])
        rows = [gathered.rows[p] for p in places]
        if name not in rows[0].log_odds:
            raise MainJobError(f"policy {file.id} does not ask about {name}; add it to its file")
        odds = np.array([row.log_odds[name] for row in rows])
        part = parts.get(name, CategoryPart())
        prior = Line(*now["calibration"][name])
        calibration, held, report = learning.calibration(name, odds, labels, prior)
        review, block = now["thresholds"][name]
        limits = learning.thresholds(held, labels, Thresholds(review=review, block=block))
        fields: dict[str, Any] = {"calibration": calibration, "thresholds": limits, "router": None}
        vectors = _vectors(rows)
        if gathered.encoder is not None and vectors is not None:
            found = learning.prototype(vectors, labels, gathered.encoder)
            if found is not None:
                fields["router"], odds = found
                router = found[0]
                report = learning.routed(report, odds, labels, router.below, router.above)
        parts[name] = part.model_copy(update=fields)
        reports.append(report)
    return file.model_copy(update={"risk": parts, "network": None})


def _with_relevance(
    file: PolicyFile,
    now: Mapping[str, Any],
    examples: Sequence[Example],
    gathered: Gathered,
    reports: list[Report],
) -> PolicyFile:
    labels = np.array([example.relevant for example in examples])
    rows = [gathered.rows[place] for place in range(len(examples))]
    odds = np.array([row.log_odds[RELEVANCE] for row in rows])
    prior = Line(*now["calibration"][RELEVANCE])
    calibration, _, report = learning.calibration(RELEVANCE, odds, labels, prior)
    part = RelevancePart(calibration=calibration)
    cosines = [row.cosine for row in rows if row.cosine is not None]
    if gathered.encoder is not None and len(cosines) == len(rows):
        found = learning.cosine_router(np.array(cosines), labels, gathered.encoder)
        if found is not None:
            router, odds = found
            report = learning.routed(report, odds, labels, router.below, router.above)
            part = RelevancePart(calibration=calibration, router=router)
    reports.append(report)
    return file.model_copy(update={"relevance": part})


def _vectors(rows: Sequence[Evidence]) -> Any:
    vectors = [row.vector for row in rows if row.vector is not None]
    return np.stack(vectors).astype(float) if len(vectors) == len(rows) else None


def lines(file: PolicyFile, reports: Sequence[Report]) -> list[str]:
    """What to print: one line a question, figures held out, with how few labels they are of."""
    said = [f"{file.id} version {file.version}, held-out figures:"]
    for one in reports:
        router = "router: too few labels of either kind, or no vectors"
        if one.router_ece is not None:
            router = (
                f"router AU-PRC {shown(one.router_au_prc)} ECE {one.router_ece:.3f}, "
                f"decides {one.decided:.0%} ({one.wrong} wrong)"
            )
        said.append(
            f"  {one.question}: {one.labels} labels, {one.positive} yes; model AU-PRC "
            f"{shown(one.model_au_prc)} ECE {one.model_ece:.3f}; {router}"
        )
    return said


def shown(value: float | None) -> str:
    """A figure, or that there is none."""
    return "-" if value is None else f"{value:.3f}"


def summary(file: PolicyFile, reports: Sequence[Report]) -> Mapping[str, Any]:
    """The same for machines."""
    return {
        "policy": file.id,
        "version": file.version,
        "questions": [asdict(report) for report in reports],
    }
