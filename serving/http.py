"""The HTTP front of every application: one guard around a FastAPI app.

In: a `Replica` and a body limit. Out: an app with `/healthz` and `/readyz`, to which a room adds
routes (one equal to the prefix is declared as ""). The guard gives each request an id, checks
the bearer key, bounds the body, turns errors into RFC 9457 problems (under `/v2` into the
protocol's `{"error"}`), counts and logs. Rooms name a route's scope with `requires`.
"""

import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from serving import auth, docs_page, logs
from serving.errors import (
    InvalidRequestError,
    ServingError,
    TransportError,
    UnsupportedMediaTypeError,
)
from serving.guard import KEY, PROBLEM, Guard, error_response
from serving.replica import Replica

PUBLIC = frozenset({"/healthz", "/readyz"})
_Body = TypeVar("_Body", bound=BaseModel)
_WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?", re.ASCII)


async def _always_ready() -> None:
    return None


def create_app(
    replica: Replica,
    *,
    body_limit_bytes: int,
    ready: Callable[[], Awaitable[None]] = _always_ready,
    public: frozenset[str] = frozenset(),
) -> FastAPI:
    """The app of one application.

    `ready` raises a ServingError while the application cannot answer. `public`: paths below
    the prefix that need no key, beside `/healthz` and `/readyz`.
    """
    title = f"Tessera {replica.application}"
    app = FastAPI(title=title, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(ServingError, _on_error(replica, lambda e: e))
    app.add_exception_handler(HTTPException, _on_error(replica, _from_http))
    app.add_exception_handler(RequestValidationError, _on_error(replica, _from_validation))
    app.state.plain = {}
    app.add_middleware(
        Guard,
        replica=replica,
        body_limit_bytes=body_limit_bytes,
        public=PUBLIC | public,
        plain=app.state.plain,
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(
            docs_page.page(app.openapi(), replica.prefix), headers=docs_page.HEADERS
        )

    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    async def readyz() -> dict[str, str]:
        await ready()
        return {"status": "ready"}

    return app


def requires(scope: auth.Scope) -> Any:
    """A route dependency: the caller's key must have `scope`."""

    async def check(request: Request) -> None:
        auth.check_scope(request.scope[KEY], scope)

    return Depends(check)


class PlainRoute(APIRoute):
    """A route whose function takes the request and gives the response: FastAPI describes it, and
    solves nothing. Its dependencies (`requires`) are asked one after the other.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        checks: list[Any] = [one.dependency for one in self.dependencies]
        answer = self.endpoint

        async def handle(request: Request) -> Response:
            for check in checks:
                await check(request)
            response: Response = await answer(request)
            return response

        return handle


def add_plain(app: FastAPI, routes: APIRouter) -> None:
    """Add plain routes without parameters in their paths: the guard hands requests straight to
    them, and FastAPI's own layers are left out."""
    app.include_router(routes)
    for route in routes.routes:
        if isinstance(route, PlainRoute):
            handle = route.get_route_handler()
            for method in route.methods or ():
                app.state.plain[method, route.path] = route, handle


def content_type(request: Request) -> str:
    """A request's media type without parameters, in lower case; empty where none is named."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def accepts(request: Request, media: str) -> bool:
    """Whether `media` is asked for by name, and no less than JSON (RFC 9110, 12.5.1)."""
    wanted: dict[str, float] = {}
    for part in ",".join(request.headers.getlist("accept")).lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        given = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        wanted[name] = float(given) if _WEIGHT.fullmatch(given) else 1.0
    return wanted.get(media, 0) > 0 and wanted[media] >= wanted.get("application/json", 0)


def check_content_type(request: Request, expected: str) -> None:
    """UnsupportedMediaTypeError unless the request's content is `expected`, not compressed."""
    if (coded := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise UnsupportedMediaTypeError(f"content encoding {coded}: send the body as it is")
    if content_type(request) != expected:
        found = request.headers.get("content-type", "")
        raise UnsupportedMediaTypeError(
            f"expected content type {expected}, found {found or 'none'}; set the header"
        )


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object; InvalidRequestError says where it is broken."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequestError(f"expected a JSON object, found {type(value).__name__}")
    return value


def validate(shape: type[_Body], value: Mapping[str, Any]) -> _Body:
    """`value` as a `shape`; InvalidRequestError names every field that is wrong."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise InvalidRequestError(_fields(error.errors())) from error


async def json_body(request: Request, shape: type[_Body]) -> _Body:
    """The request's JSON body as a `shape`."""
    check_content_type(request, "application/json")
    return validate(shape, parse_json(await request.body()))


def document_body(shape: type[BaseModel], **examples: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its JSON body itself; examples: bodies by name."""
    content: dict[str, Any] = {"schema": shape.model_json_schema()}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def _fields(errors: Any) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in errors[:10])


def _from_http(error: Any) -> ServingError:
    """Starlette's own refusals (404, 405, broken multipart) as ours."""
    if isinstance(error.__cause__, ServingError):
        return error.__cause__
    title = HTTPStatus(error.status_code).phrase
    detail = f"{error.detail}; see the application's /docs"
    return TransportError(error.status_code, title, detail, (error.headers or {}).get("Allow"))


def _from_validation(error: Any) -> ServingError:
    return InvalidRequestError(_fields(error.errors()))


def _on_error(replica: Replica, translate: Callable[[Any], ServingError]) -> Any:
    async def handle(request: Request, error: Exception) -> Response:
        found = translate(error)
        request.scope[PROBLEM] = found.slug
        return error_response(found, replica.prefix, logs.request_id.get())

    return handle
