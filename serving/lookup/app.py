"""Ray Serve's side of lookups: `POST /v1/lookup` and `tessera.v1.Lookup/Lookup`.

In: an `AppArgs` dictionary. Out: one deployment, `lookup`; each replica holds a near cache and
its own connections to the store.
"""

from typing import Any

from fastapi import FastAPI, Request, Response
from ray import serve

from feature_store import AsyncFeatureStore, Found
from feature_store.errors import FeatureStoreError, InputError, UnknownVersionError
from serving import http, rpc, unserved
from serving.config import AppArgs
from serving.deadline import default_lookup_s, header_seconds
from serving.errors import (
    InvalidRequestError,
    NotFoundError,
    ServingError,
    UnavailableError,
)
from serving.lookup import lookup_pb2, rows
from serving.metrics import Metrics
from serving.replica import Replica, bind
from serving.schema import LookupRequest, LookupResponse

BODY_LIMIT_BYTES = 4 << 20  # 100,000 ids of 19 digits as strings are 2.2 MB
RPC = "/tessera.v1.Lookup/Lookup"
READY_S = 1.0


def translate(error: FeatureStoreError) -> ServingError:
    """A feature store's error as a problem."""
    if isinstance(error, UnknownVersionError):
        return NotFoundError(str(error))
    if isinstance(error, InputError):
        return InvalidRequestError(str(error))
    return UnavailableError(str(error))


class Lookups:
    """Runs lookups against one store and counts their rows."""

    def __init__(self, store: AsyncFeatureStore, metrics: Metrics) -> None:
        self._store = store
        self._rows = metrics.counter("tessera_lookup_rows", "rows answered", ("status",))

    async def find(self, query: rows.Query) -> Found:
        """Look the query's ids up. Raises NotFoundError for an unknown version."""
        seconds = query.deadline_s or default_lookup_s(len(query.ids))
        try:
            found = await self._store.lookup(query.ids, version=query.version, deadline=seconds)
        except FeatureStoreError as error:
            raise translate(error) from error
        for name, count in rows.status_counts(found.status):
            self._rows.inc(count, tags={"status": name})
        return found

    async def ready(self) -> None:
        """Raises UnavailableError while the store does not answer."""
        query = rows.Query(rows.parse_ids([1]), None, READY_S)
        if rows.degraded((await self.find(query)).status):
            raise UnavailableError("the feature store does not answer")


@serve.deployment(name="lookup")
@serve.ingress()
@unserved.complete
class LookupDeployment:
    """One replica: HTTP and gRPC over the same `Lookups`."""

    async def __init__(self, args: dict[str, Any]) -> None:  # type: ignore[misc] # Serve awaits it
        self._replica = Replica.open(AppArgs.model_validate(args))
        settings = self._replica.settings
        store = await AsyncFeatureStore.connect(
            settings.redis_url,
            namespace=settings.namespace,
            near_cache_bytes=settings.near_cache_bytes,
        )
        self._lookups = Lookups(store, self._replica.metrics)
        self._calls = rpc.Calls(self._replica)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create(self._replica, self._lookups)

    async def Lookup(  # noqa: N802 - the RPC's name
        self, request: lookup_pb2.LookupRequest, grpc_context: Any
    ) -> lookup_pb2.LookupResponse:
        """`tessera.v1.Lookup/Lookup`."""

        async def answer() -> lookup_pb2.LookupResponse:
            seconds = request.deadline_ms / 1000 or None
            query = rows.Query(rows.parse_columns(request.ad_ids), request.version or None, seconds)
            found = await self._lookups.find(query)
            return lookup_pb2.LookupResponse(
                version=found.version,
                codes=found.codes.astype("<u2").tobytes(),
                status=found.status.tobytes(),
                flags=found.flags.astype("<u2").tobytes(),
                degraded=[lookup_pb2.Degraded(**d) for d in rows.degraded(found.status) or ()],
            )

        return await self._calls.run(grpc_context, RPC, "read", answer, lookup_pb2.LookupResponse())


def create(replica: Replica, lookups: Lookups) -> FastAPI:
    """The HTTP app of lookups."""
    app = http.create_app(replica, body_limit_bytes=BODY_LIMIT_BYTES, ready=lookups.ready)

    @app.post(
        "",
        dependencies=[http.requires("read")],
        responses={200: {"model": LookupResponse}},
        openapi_extra=http.document_body(
            LookupRequest, ids={"ad_ids": [1, "9223372036854775807"], "deadline_ms": 50}
        ),
    )
    async def lookup(request: Request) -> Response:
        """Semantic IDs, status and flags of 1-100,000 ads, in the order asked."""
        http.check_content_type(request, "application/json")
        query = rows.parse_query(await request.body())
        if query.deadline_s is None:
            seconds = header_seconds(request.headers.get("x-request-timeout-seconds"))
            query = rows.Query(query.ids, query.version, seconds)
        return Response(rows.to_json(await lookups.find(query)), media_type="application/json")

    return app


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of `args` (AppArgs)."""
    application: serve.Application = bind(LookupDeployment, args)
    return application
