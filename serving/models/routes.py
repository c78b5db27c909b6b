"""The HTTP side of a model: the Open Inference Protocol below `/v2/models/{name}`.

In: a replica and its model. Out: a FastAPI app. Errors are the protocol's `{"error"}`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from serving import http
from serving.errors import InvalidRequestError, NotFoundError
from serving.guard import KEY
from serving.models import describe, door, rest
from serving.models.model import Call, Model
from serving.models.protocol import respond
from serving.models.servable import Servable
from serving.models.service import ticket
from serving.replica import Replica

BODY_LIMIT_BYTES = 64 << 20
_VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "the version that must serve; any other is a 404",
}
_GRAPH = {
    "name": "graph",
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": "which graph of the bundle; its default graph otherwise",
}


class NotReadyError(InvalidRequestError):
    """The protocol's own answer to a readiness question: 400."""

    slug, title = "not-ready", "The model is not ready"


def create(replica: Replica, model: Model) -> FastAPI:
    """The app of one model."""

    async def ready() -> None:
        _ = model.servable

    app = http.create_app(
        replica, body_limit_bytes=BODY_LIMIT_BYTES, ready=ready, public=frozenset({"/ready"})
    )

    def served(request: Request) -> tuple[Servable, str]:
        """The version and the graph that a request names."""
        servable = model.versioned(request.path_params.get("version"))
        graph = request.query_params.get("graph") or servable.default_graph
        if graph not in servable.manifest.graphs:
            raise NotFoundError(
                f"model {model.name!r} has no graph {graph!r}, only "
                f"{sorted(servable.manifest.graphs)}"
            )
        return servable, graph

    async def metadata(request: Request) -> JSONResponse:
        """Name, versions, inputs and outputs."""
        servable, graph = served(request)
        return JSONResponse(describe.metadata(servable.manifest, graph))

    async def is_ready(request: Request) -> Response:
        """200 when the version serves, 400 when not."""
        version = request.path_params.get("version")
        if not model.loaded or version not in (None, model.servable.version):
            raise NotReadyError(f"model {model.name!r} is not ready")
        return Response(status_code=200)

    async def config(request: Request) -> JSONResponse:
        """Triton's model configuration."""
        servable, graph = served(request)
        return JSONResponse(describe.config(servable.manifest, graph, model.limits))

    async def stats(request: Request) -> JSONResponse:
        """This replica's counts and times."""
        servable, _ = served(request)
        document = servable.statistics.document(model.name, servable.version)
        return JSONResponse({"model_stats": [document]})

    async def infer(request: Request) -> Response:
        """Named tensors in, named tensors out; JSON, or JSON and binary tensors after it.

        `parameters`: `graph` (which graph of the bundle), `priority` (1 to 10, 1 first) and
        `timeout` (microseconds).
        """
        found = request.scope.get(door.READ)
        if found is None:
            found = door.read(await request.body(), request.headers, BODY_LIMIT_BYTES)
        parsed, version = found.request, request.path_params.get("version")
        call = Call(parsed.graph, version, ticket(parsed, request.scope[KEY].name, found.deadline))
        outcome = await model.infer(parsed.inputs, call)
        answer = respond(parsed, model.name, outcome.version, outcome.outputs)
        rendered = rest.write(answer, request.headers.get("accept-encoding", ""))
        return Response(rendered.body, headers=rendered.headers)

    read = [http.requires("read")]

    def add(path: str, handler: Callable[[Request], Awaitable[Response]], **extra: Any) -> None:
        for prefix, parameters in (("", []), ("/versions/{version}", [_VERSION])):
            document = {**extra, "parameters": [*parameters, *extra.get("parameters", [])]}
            app.add_api_route(
                prefix + path,
                handler,
                methods=["POST" if path == "/infer" else "GET"],
                dependencies=read,
                tags=["model"],
                openapi_extra=document,
                response_class=Response,
                # Health needs no key; of one version it does, and stays off the page.
                include_in_schema=not (prefix and path == "/ready"),
                name=f"{handler.__name__}{'_of_version' if prefix else ''}",
            )

    add("/infer", infer, requestBody=_infer_body(model))  # first: routes are looked at in order
    add("", metadata, parameters=[_GRAPH])
    add("/ready", is_ready)
    add("/config", config, parameters=[_GRAPH])
    add("/stats", stats)
    return app


def _infer_body(model: Model) -> dict[str, Any]:
    """The request body's document, with an example of each graph that works."""
    servable = model.servable
    examples = {}
    for name, graph in servable.manifest.graphs.items():
        if any(spec.dtype == "float16" for spec in (*graph.inputs, *graph.outputs)):
            continue  # JSON cannot carry it
        value = describe.example(graph)
        if name != servable.default_graph:
            value["parameters"] = {"graph": name}
        examples[name] = {"summary": f"graph `{name}`", "value": value}
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string"},
            "parameters": {"type": "object"},
            "data": {"type": "array", "items": {}},
        },
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": tensor},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
                },
            },
        },
    }
    return {
        "required": True,
        "content": {
            "application/json": {"schema": schema, "examples": examples},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
