"""Routes by which people decide: `/v1/checks/overrides`, of scope `admin`.

In: the app of checks and its bench. Out: decisions carried out (`people.py`), and listed as the
examples that onboarding reads.
"""

from typing import Any

from fastapi import FastAPI, Request

from serving import http
from serving.checks import people
from serving.checks.opening import Bench
from serving.lookup.rows import parse_id
from serving.replica import Replica
from serving.schema_admin import OverrideRequest, OverrideResponse, Overrides

LISTED = 10_000
_RISK: dict[str, Any] = {"verdict": "review", "categories": {"gambling": True}}


def add_override_routes(app: FastAPI, replica: Replica, bench: Bench) -> None:
    """Add `GET /overrides`, and `PUT` and `DELETE /overrides/{ad_id}`."""
    admin = [http.requires("admin")]
    counted = replica.metrics.counter("tessera_overrides", "decisions of people", ("task",))

    @app.put(
        "/overrides/{ad_id}",
        dependencies=admin,
        openapi_extra=http.document_body(
            OverrideRequest,
            relevance={"query": "red shoes", "relevant": False, "reason": "they are blue"},
            risk=_RISK | {"reason": "a bonus wheel in the picture"},
        ),
    )
    async def override(ad_id: str, request: Request) -> OverrideResponse:
        """What a person says of an ad wins over every verdict, now and when it is sent again."""
        number = parse_id(ad_id)
        asked = await http.json_body(request, OverrideRequest)
        labels = bench.judge.policy.checks.labels
        made = people.decision(number, asked, (labels.yes, labels.no))
        done = await people.decide(bench, made)
        await bench.overrides.settle()
        counted.inc(tags={"task": "relevance" if made.query else "risk"})
        said = {"ad_id": number, "verdict": asked.verdict, "reason": asked.reason}
        replica.logger.warning("override", extra={"fields": said})
        return OverrideResponse(
            ad_id=number, held=True, replicated=done.replicated, copies=done.copies
        )

    @app.delete("/overrides/{ad_id}", dependencies=admin)
    async def withdraw(ad_id: str, query: str = "") -> OverrideResponse:
        """Forget what a person said of an ad (with `query`: of both); it is judged anew."""
        number = parse_id(ad_id)
        done = await people.withdraw(bench, number, query)
        await bench.overrides.settle()
        replica.logger.warning("override withdrawn", extra={"fields": {"ad_id": number}})
        return OverrideResponse(ad_id=number, held=False, replicated=done.replicated, copies=0)

    @app.get("/overrides", dependencies=admin)
    async def overrides() -> Overrides:
        """What people have said, as onboarding reads it."""
        found: list[dict[str, object]] = []
        async for line in bench.overrides.examples():
            if len(found) == LISTED:
                return Overrides(overrides=found, complete=False)
            found.append(line)
        return Overrides(overrides=found, complete=True)
