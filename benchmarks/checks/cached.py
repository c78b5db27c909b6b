"""A stored verdict over HTTP beside an empty route, one caller; and many who ask the same at once.

One process serves both routes (uvicorn, as in a replica; HAProxy would stand before both), a thread
asks in turns over one connection each, as fast as answers come. Identical: how many reads the
engine saw for N identical checks that came together.
"""

import asyncio
import http.client
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Response

from feature_store.ports import free_port
from serving.checks.app import create
from serving.checks.opening import open_bench
from serving.config import apply_environment
from serving.errors import UnavailableError
from serving.llm.deployment import LlmOptions
from serving.llm.engine import Engine
from serving.llm.handle import LlmHandle
from serving.replica import Replica

from .. import random_llm, report, stats
from ..errors import InvalidRunError
from .opened import opened, random_bundle, values

REQUESTS = 20_000  # of each
WARM_UP = 200
IDENTICAL = 64
P50_ABOVE_MS, P99_RATIO = 0.5, 1.3
BODY = orjson.dumps({"query": "red shoes", "ads": [{"title": "shoes in red", "text": "on sale"}]})


def run(folder: Path, size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure; always the tiny model, since it is not to be asked."""
    del size
    sizes = values()
    with opened(random_bundle(folder, random_llm.TINY, seed, sees=False), sizes) as desk:
        apply_environment({"TESSERA_REDIS_URL": desk.url, "TESSERA_MODELS": str(folder / "models")})
        requests = max(500, round(REQUESTS * scale))
        taken, reads = desk.runner.run(_served(desk.bridge, requests))
    cached, empty = taken["cached"], taken["empty"]
    above = stats.excess(cached, (empty,))
    far = stats.ratio(cached, empty, 0.99)
    rows = [{"route": n, "p50_ms": float(np.median(t)), **_p99(t)} for n, t in taken.items()]
    report.table(f"Checks: a stored verdict over HTTP, n = {requests}", rows)
    return {
        "n": requests,
        "routes": rows,
        "p50_above_ms": above.judged(P50_ABOVE_MS),
        "p99_ratio": far.judged(P99_RATIO),
        "identical": {"checks": IDENTICAL, "engine_reads": reads},
    }


def _p99(taken: np.ndarray) -> dict[str, float]:
    return {"p99_ms": float(np.percentile(taken, 99))}


async def _served(engine: Engine, requests: int) -> tuple[dict[str, np.ndarray], int]:
    handle = Handle(engine)
    async with serving(handle) as port:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(IDENTICAL) as pool:
            together = [loop.run_in_executor(pool, _once, port) for _ in range(IDENTICAL)]
            answers = await asyncio.gather(*together)
        if len({answer["results"][0]["score"] for answer in answers}) != 1:
            raise InvalidRunError("identical checks had different answers")
        reads = handle.reads
        taken = await asyncio.to_thread(_turns, port, requests)
        if handle.reads != reads:
            raise InvalidRunError("a stored verdict was asked of the engine")
    return taken, reads


def _once(port: int) -> Any:
    return _Caller(port, "POST", "/relevance", BODY).json()


def _turns(port: int, requests: int) -> dict[str, np.ndarray]:
    """Milliseconds (n,) of each route."""
    callers = {
        "cached": _Caller(port, "POST", "/relevance", BODY),
        "empty": _Caller(port, "POST", "/empty", BODY),
    }
    subjects: dict[str, Callable[[int], float]] = {n: c.timed for n, c in callers.items()}
    stats.abba(subjects, WARM_UP // 2)
    return stats.abba(subjects, -(-requests // 2))


class _Caller:
    """One connection that sends the same request again and again."""

    def __init__(self, port: int, method: str, path: str, body: bytes) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._request = (method, path, body, {"content-type": "application/json"})

    def timed(self, _: int) -> float:
        begun = time.perf_counter()
        self.json()
        return (time.perf_counter() - begun) * 1000

    def json(self) -> Any:
        self._connection.request(*self._request)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise InvalidRunError(f"{self._request[1]}: {answer.status} {body[:200]!r}")
        return orjson.loads(body)


def _there(engine: LlmHandle) -> bool:
    try:
        engine.check()
    except UnavailableError:
        return False
    return True


class _Method:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function


class Handle:
    """An `Engine` where checks expect Serve's handle. reads: asks that it saw."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.reads = 0
        self.read = _Method(self._read)
        self.describe = _Method(self._describe)

    async def _read(self, asks: Any, labels: tuple[int, ...]) -> Any:
        self.reads += len(asks)
        return await self._engine.read(asks, labels)

    async def _describe(self) -> dict[str, Any]:
        self._engine.health()
        return {}


@asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[int]:
    """The port of checks and of an empty route."""
    import uvicorn

    replica = Replica.local("checks", "/v1/checks")
    bench = await open_bench(replica, LlmOptions(), handle)
    checks, empty = create(replica, bench), FastAPI()

    @empty.post("/empty")
    async def nothing() -> Response:
        return Response(b"{}", media_type="application/json")

    async def both(scope: Any, receive: Any, send: Any) -> None:
        chosen = empty if scope.get("path") == "/empty" else checks
        await chosen(scope, receive, send)

    port = free_port()
    config = uvicorn.Config(
        both, host="127.0.0.1", port=port, lifespan="off", log_level="error", access_log=False
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(60):
            while not (server.started and _there(bench.engine)):
                await asyncio.sleep(0.02)
        yield port
    finally:
        server.should_exit = True
        await running
        await bench.close()
