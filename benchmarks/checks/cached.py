"""A stored verdict over HTTP beside an empty route, one caller; and many who ask the same at once.

One process serves both routes (uvicorn and uvloop, as in a replica; HAProxy would stand before
both), another asks in turns (`asking.py`). Identical: how many reads the engine saw for N identical
checks that came together.
"""

import asyncio
import subprocess
import sys
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
from .asking import once
from .opened import opened, random_bundle, values

REQUESTS = 20_000  # of each
LONGEST_S = 600.0
IDENTICAL = 64
P50_ABOVE_MS, P99_RATIO = 0.5, 1.3


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
            together = [loop.run_in_executor(pool, once, port) for _ in range(IDENTICAL)]
            answers = await asyncio.gather(*together)
        if len({answer["results"][0]["score"] for answer in answers}) != 1:
            raise InvalidRunError("identical checks had different answers")
        reads = handle.reads
        taken = await asyncio.to_thread(_turns, port, requests)
        if handle.reads != reads:
            raise InvalidRunError("a stored verdict was asked of the engine")
    return taken, reads


def _turns(port: int, requests: int) -> dict[str, np.ndarray]:
    """Milliseconds (n,) of each route."""
    command = [sys.executable, "-m", f"{__package__}.asking", str(port), str(requests)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, timeout=LONGEST_S)
    if ran.returncode:
        raise InvalidRunError(f"the caller ended with exit code {ran.returncode}")
    return {name: np.array(taken) for name, taken in orjson.loads(ran.stdout).items()}


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
    hearing = asyncio.create_task(bench.hearing.run()) if bench.hearing else None
    try:
        async with asyncio.timeout(60):
            while not (server.started and _there(bench.engine)):
                await asyncio.sleep(0.02)
        yield port
    finally:
        server.should_exit = True
        await running
        if hearing is not None:
            hearing.cancel()
        await bench.close()
