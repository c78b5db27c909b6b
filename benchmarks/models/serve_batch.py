"""The peer behind `@serve.batch`: the same bundle, the same session, Serve's own batching.

In: one row's raw bytes a POST. Out: the raw bytes of the first output's row. It has neither checks
nor metrics nor a protocol to read, so what it lacks in batching is not made up by our work.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from export import Repository
from serving.models.servable import default_graph
from serving.session import open_session, warm_up

NAME, PREFIX = "serve_batch", "/peer"
ONGOING = 1024  # as our model applications have it


@serve.deployment(name=NAME, max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": 0.2})
class Peer:
    """One model of one input and one output."""

    def __init__(self, repository: str, model: str) -> None:
        bundle = Repository(Path(repository)).open(model)
        graph = default_graph(bundle.manifest)
        spec = bundle.manifest.graphs[graph].inputs[0]
        self._session = open_session(bundle, graph)
        warm_up(self._session, (1, 2, 4, 8, 16, 32))
        self._thread = ThreadPoolExecutor(1)
        self._name, self._dtype = spec.name, np.dtype(spec.dtype)
        self._shape = [size for size in spec.shape[1:] if isinstance(size, int)]

    async def __call__(self, request: Request) -> Response:
        """Infer a row; with a query, set what batches are cut by."""
        asked = request.query_params
        if asked:
            infer: Any = self._infer  # which Serve gives methods of its own
            infer.set_max_batch_size(int(asked["rows"]))
            infer.set_batch_wait_timeout_s(float(asked["wait_s"]))
            return Response()
        row = np.frombuffer(await request.body(), self._dtype).reshape(self._shape)
        return Response(await self._infer(row), media_type="application/octet-stream")

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.01)
    async def _infer(self, rows: list[Any]) -> list[bytes]:
        joined = {self._name: np.stack(rows)}
        loop = asyncio.get_running_loop()
        outputs = await loop.run_in_executor(self._thread, partial(self._session.run, joined))
        return [row.tobytes() for row in next(iter(outputs.values()))]


def deploy(repository: Path, model: str) -> None:
    """Beside what runs already, at PREFIX."""
    peer: Any = Peer
    serve.run(peer.bind(str(repository), model), name=NAME, route_prefix=PREFIX)
