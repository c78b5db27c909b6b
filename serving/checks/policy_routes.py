"""Routes about policies: which hold, and the evidence that onboarding fits one to.

In: the app of checks and its bench. Out: `GET /v1/checks/policies` (scope `read`) and
`POST /v1/checks/evidence` (scope `admin`).
"""

import base64
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from serving import http
from serving.checks import evidence, forms
from serving.checks.opening import Bench
from serving.checks.policy import Policy
from serving.checks.subjects import Subject
from serving.errors import ServingError
from serving.schema_admin import EvidenceRequest, EvidenceResponse, Policies, PolicyState


def add_policy_routes(app: FastAPI, bench: Bench) -> None:
    """Add `GET /policies` and `POST /evidence`."""

    @app.get("/policies", dependencies=[http.requires("read")])
    async def policies() -> Policies:
        """The policies that hold in this replica, and what is wrong with their files."""
        held = [_state(policy) for policy in bench.book.policies.values()]
        return Policies(policies=held, problems=dict(bench.book.problems))

    @app.post(
        "/evidence",
        dependencies=[http.requires("admin")],
        responses={200: {"model": EvidenceResponse}},
        openapi_extra=http.document_body(
            EvidenceRequest,
            risk={"ads": [{"title": "shoes in red"}]},
            relevance={"query": "red shoes", "ads": [{"title": "shoes in red"}]},
        ),
    )
    async def gather(request: Request) -> Response:
        """What verdicts are made of: the model's log-odds, and where ad and query lie."""
        body = await http.json_body(request, EvidenceRequest)
        policy = bench.judges.of(body.policy).policy
        query = None if body.query is None else forms.query(body.query)
        rows = forms.rows(body.ad_ids, body.ads)
        deadline = forms.deadline(body.deadline_ms, None)
        subjects = await forms.subjects(bench.subjects, rows)
        good = [one for one in subjects if isinstance(one, Subject)]
        model = bench.model(evidence.uncalibrated(policy))
        found = iter(await evidence.gather(model, bench.space, good, query, deadline))
        said = [next(found) if isinstance(one, Subject) else one for one in subjects]
        encoders = {one.encoder for one in said if isinstance(one, evidence.Evidence)}
        answer = {
            "results": [_row(row, one) for row, one in zip(rows, said, strict=True)],
            "encoder": encoders.pop() if len(encoders) == 1 else None,
            "policy_version": policy.version,
        }
        return Response(orjson.dumps(answer), media_type="application/json")


def _state(policy: Policy) -> PolicyState:
    checks = policy.checks
    lines = {evidence.RELEVANCE: checks.calibration.relevance, **checks.calibration.risk}
    return PolicyState(
        id=policy.name,
        version=policy.version,
        categories=list(policy.categories),
        enforce=checks.enforce,
        routed=policy.routed,
        calibration={name: (line.scale, line.bias) for name, line in lines.items()},
        thresholds={name: (one.review, one.block) for name, one in checks.thresholds.items()},
    )


def _row(row: forms.Row, said: evidence.Evidence | ServingError) -> dict[str, Any]:
    ad_id = row if isinstance(row, int) else None
    if isinstance(said, ServingError):
        return forms.problem(ad_id, said)
    vector = None
    if said.vector is not None:
        vector = base64.b64encode(said.vector.astype("<f2").tobytes()).decode()
    return {
        "ad_id": ad_id,
        "log_odds": said.log_odds,
        "label_mass": said.label_mass,
        "words": sorted(said.words),
        "vector": vector,
        "cosine": said.cosine,
    }
