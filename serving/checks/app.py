"""Ray Serve's side of checks: `/v1/checks/relevance`, `/risk` and `/caption`.

In: an `AppArgs` dictionary. Out: two deployments: `checks`, which answers over HTTP, and `llm`,
which holds the engine in a process of its own, so that one that dies leaves somebody to say so.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from ray import serve
from redis.exceptions import RedisError

from feature_store.errors import FeatureStoreError
from serving import bundles, http, unserved
from serving.checks import forms
from serving.checks.captions import add_caption_route
from serving.checks.judge import PASSING, Judged
from serving.checks.opening import Bench, open_bench
from serving.checks.override_routes import add_override_routes
from serving.checks.owed_routes import add_owed_routes
from serving.checks.policy_routes import add_policy_routes
from serving.checks.subjects import Subject
from serving.checks.understander import SOON
from serving.checks.verdicts import Relevance, Risk
from serving.config import AppArgs
from serving.encode.handles import ServedEncoder
from serving.errors import (
    OverloadedError,
    ServingError,
    UnavailableError,
)
from serving.image import ImagePool
from serving.llm.deployment import LlmDeployment, LlmOptions
from serving.replica import Replica
from serving.schema import (
    RelevanceRequest,
    RelevanceResponse,
    RiskRequest,
    RiskResponse,
)

BODY_LIMIT_BYTES = 64 << 20

logger = logging.getLogger("tessera.checks")
ENCODE_THREADS = 2
_Kind = TypeVar("_Kind", bound=Relevance | Risk)


@serve.deployment(name="checks")
@serve.ingress()
@unserved.complete
class ChecksDeployment:
    """One replica of checks."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self, args: dict[str, Any], llm: Any
    ) -> None:
        parsed = AppArgs.model_validate(args)
        self._replica = Replica.open(parsed)
        options = LlmOptions.model_validate(parsed.options)
        settings = self._replica.settings
        self._images = ImagePool(ENCODE_THREADS, max_pixels=settings.image_pixels)
        encoder = ServedEncoder(bundles.repository(settings), self._images, parsed.application)
        self._bench = bench = await open_bench(self._replica, options, llm, encoder)
        self._worker = asyncio.create_task(bench.completer.run(bench.engine))
        self._watch = asyncio.create_task(bench.book.watch())
        self._warm = asyncio.create_task(bench.warming.run(bench.engine.check))
        if bench.hearing is not None:
            self._hear = asyncio.create_task(bench.hearing.run())
        if bench.spreading is not None:
            self._follow = asyncio.create_task(bench.spreading.run())

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create(self._replica, self._bench)


class Checks:
    """The routes' work: rows in, rows out."""

    def __init__(self, replica: Replica, bench: Bench) -> None:
        self._bench = bench
        self._warm = False
        self._judged = replica.metrics.counter(
            "tessera_checks", "checks answered", ("task", "outcome")
        )

    async def ready(self) -> None:
        """Raises ServingError while the store or the engine is away, or policies are cold."""
        try:
            await self._bench.store.versions()
        except FeatureStoreError as error:
            raise UnavailableError(f"the feature store failed: {error}") from error
        self._bench.engine.check()
        if not self._warm:  # later policies are warmed as they come
            await self._bench.warming.settle()
            self._warm = True
        await self._bench.sight.open()

    async def answer(
        self,
        task: str,
        rows: Sequence[forms.Row],
        judge: Callable[[list[Subject]], Awaitable[list[Judged[_Kind] | ServingError]]],
        result: Callable[[int | None, Judged[_Kind]], dict[str, Any]],
        owe: Callable[[list[int]], Awaitable[None]] | None = None,
    ) -> Response:
        """One result or problem a row, in order. owe: of ads that the model will judge later."""
        subjects = await forms.subjects(self._bench.subjects, rows)
        good = [row for row, one in enumerate(subjects) if isinstance(one, Subject)]
        found = await judge([one for one in subjects if isinstance(one, Subject)])
        judged: dict[int, Judged[_Kind] | ServingError] = dict(zip(good, found, strict=True))
        results: list[dict[str, Any]] = []
        errors: list[ServingError] = []
        problems: list[ServingError] = []
        masses: list[float] = []
        later: list[int] = []
        for row, subject in enumerate(subjects):
            ad_id = _ad_id(rows[row])
            one = subject if isinstance(subject, ServingError) else judged[row]
            passing = one if isinstance(one, ServingError) else one.instead_of
            if passing is not None:
                errors.append(passing)
                if ad_id is not None and isinstance(passing, PASSING):
                    later.append(ad_id)
            elif not isinstance(one, ServingError):
                masses.append(one.value.label_mass)
            if isinstance(one, ServingError):
                problems.append(one)
                results.append(forms.problem(ad_id, one))
                self._judged.inc(tags={"task": task, "outcome": one.slug})
            else:
                results.append(result(ad_id, one))
                self._judged.inc(tags={"task": task, "outcome": one.source})
        if later and owe is not None:
            await self._owe(owe(later))
        shed = [error for error in problems if isinstance(error, OverloadedError)]
        if len(shed) == len(rows):
            raise shed[0]  # nothing was answered: 429 says when to come back
        return _json({"results": results, "degraded": self._degraded(errors, masses)})

    async def _owe(self, owed: Awaitable[None]) -> None:
        """Nobody was promised these: where they cannot be kept, they are asked for again."""
        try:
            await owed
        except (RedisError, OverloadedError) as error:
            logger.warning("verdicts that were not made are not owed: %s", error)

    def _degraded(
        self, errors: Sequence[ServingError], masses: Sequence[float]
    ) -> list[dict[str, str]] | None:
        sight = self._bench.sight
        notes = {"images": sight.blind or ""} if sight.mismatched else {}
        return forms.degraded(errors, masses, notes)


def create(replica: Replica, bench: Bench) -> FastAPI:
    """The HTTP app of checks."""
    checks = Checks(replica, bench)
    app = http.create_app(replica, body_limit_bytes=BODY_LIMIT_BYTES, ready=checks.ready)
    read = [http.requires("read")]
    routes = APIRouter(route_class=http.PlainRoute)

    @routes.post(
        "/relevance",
        dependencies=read,
        responses={200: {"model": RelevanceResponse}},
        openapi_extra=http.document_body(
            RelevanceRequest, ads={"query": "red shoes", "ads": [{"title": "shoes in red"}]}
        ),
    )
    async def relevance(request: Request) -> Response:
        """Whether each ad answers the query: a calibrated probability and its source."""
        body = await http.json_body(request, RelevanceRequest)
        judge = bench.judges.of(body.policy)
        query, rows = forms.query(body.query), forms.rows(body.ad_ids, body.ads)
        deadline = _deadline(body.deadline_ms, request)
        return await checks.answer(
            "relevance",
            rows,
            lambda subjects: judge.relevance(query, subjects, deadline),
            forms.relevance_result,
            None if body.policy else lambda ids: bench.owed.add_query(ids, query),
        )

    @routes.post(
        "/risk",
        dependencies=read,
        responses={200: {"model": RiskResponse}},
        openapi_extra=http.document_body(RiskRequest, ads={"ads": [{"title": "shoes in red"}]}),
    )
    async def risk(request: Request) -> Response:
        """What is wrong with each ad: a verdict, and a calibrated probability by category."""
        body = await http.json_body(request, RiskRequest)
        judge = bench.judges.of(body.policy)
        rows, deadline = forms.rows(body.ad_ids, body.ads), _deadline(body.deadline_ms, request)
        return await checks.answer(
            "risk",
            rows,
            lambda subjects: judge.risk(subjects, deadline, SOON),
            lambda ad_id, one: forms.risk_result(ad_id, one, judge.policy.version),
            None if body.policy else bench.owed.add,
        )

    http.add_plain(app, routes)
    add_caption_route(app, bench)
    add_owed_routes(app, bench)
    add_override_routes(app, replica, bench)
    add_policy_routes(app, bench)
    return app


def _deadline(asked_ms: float | None, request: Request) -> Any:
    return forms.deadline(asked_ms, request.headers.get("x-request-timeout-seconds"))


def _ad_id(row: forms.Row) -> int | None:
    return row if isinstance(row, int) else None


def _json(value: dict[str, Any]) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of `args` (AppArgs): `checks` in front of `llm`."""
    sizes = AppArgs.model_validate(args).deployments
    engine: Any = LlmDeployment
    front: Any = ChecksDeployment
    llm = engine.options(**sizes.get("llm", {})).bind(args)
    application: serve.Application = front.options(**sizes.get("checks", {})).bind(args, llm)
    return application
