"""LitServe with the same ONNX file as a peer, in an environment and a process of its own.

In: a bundle, what its batches are cut by. Out: how it does beside us. Rows travel as base64 in
JSON, which is how LitServe's own examples send images.
"""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from export import Bundle, Repository
from feature_store.ports import free_port
from serving.cores import available_cores
from serving.models.servable import default_graph

from .. import report
from ..feast.environment import FOLDER, NoPeerError, python
from ..http1 import Http
from ..load import Request
from . import peers
from .arrivals import arrive
from .client import Client

PINNED = ("litserve==0.2.19", "onnxruntime==1.32.0", "numpy==2.4.6")
SETTINGS = ((8, 0.0), (8, 0.005), (32, 0.0))  # rows of a batch, seconds to wait for one
READY_S = 120.0
STOP_S = 10.0
TUNE_S = 6.0
BAR = 1.0  # goodput on an image tower: not worse


def run(
    runner: asyncio.Runner,
    client: Client,
    repository: Repository,
    model: str,
    peak: float,
    scale: float,
) -> dict[str, Any]:
    """Beside LitServe, at the best of SETTINGS; says why where it cannot be had."""
    try:
        interpreter = python(FOLDER, PINNED)
        bundle = repository.open(model)
        rows = client.rows_of(model)
        taken = {}
        for setting in SETTINGS:
            with _started(interpreter, bundle, setting) as url:
                arrived = runner.run(_arrive(url, rows, 0.8 * peak, max(TUNE_S * scale, 0.5)))
                taken[setting] = arrived
        best = min(taken, key=lambda setting: taken[setting])
        with _started(interpreter, bundle, best) as url:
            found = runner.run(_compared(client, model, url, rows, peak, scale))
    except NoPeerError as error:
        report.say(f"without LitServe: {error}")
        return {"left_out": str(error)}
    return {"model": model, "peer_tuned_to": list(best), "pinned": list(PINNED), **found}


async def _arrive(url: str, rows: list[bytes], rate: float, seconds: float) -> float:
    http = Http(url)
    found = await arrive(_calls(http, rows), rate, seconds)
    http.close()
    return found.p99_ms()


async def _compared(
    client: Client, model: str, url: str, rows: list[bytes], peak: float, scale: float
) -> dict[str, Any]:
    http = Http(url)
    limit_s = await peers.limit(client, model, peak, scale)
    subjects = {"tessera": client.infer(model, 1, limit_s), "litserve": _calls(http, rows)}
    found = await peers.compared(subjects, peak, limit_s, scale, BAR)
    http.close()
    return found


def _calls(http: Http, rows: list[bytes]) -> Request:
    bodies = [orjson.dumps({"row": base64.b64encode(row).decode()}) for row in rows]
    requests = [http.request("POST", "/predict", body) for body in bodies]

    async def call(number: int) -> str:
        status, _ = await http.send(requests[number % len(requests)])
        return "ok" if status == 200 else f"HTTP {status}"

    return call


@contextmanager
def _started(interpreter: Path, bundle: Bundle, setting: tuple[int, float]) -> Iterator[str]:
    """A server; its address. Raises NoPeerError."""
    graph = default_graph(bundle.manifest)
    spec = bundle.manifest.graphs[graph].inputs[0]
    asked = {
        "file": str(bundle.path(graph).absolute()),
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": spec.shape[1:],
        "port": free_port(),
        "threads": available_cores(),
        "rows": setting[0],
        "wait_s": setting[1],
    }
    app = Path(__file__).with_name("litserve_app.py")
    command = [str(interpreter), str(app), json.dumps(asked)]
    process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    url = f"http://127.0.0.1:{asked['port']}"
    try:
        _wait(process, url)
        yield url
    finally:  # its workers too
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str) -> None:
    async def healthy() -> bool:
        http = Http(url)
        try:
            status, _ = await http.send(http.request("GET", "/health"))
        except (OSError, asyncio.IncompleteReadError):
            return False
        http.close()
        return status == 200

    deadline = time.monotonic() + READY_S
    while not asyncio.run(healthy()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise NoPeerError("LitServe did not start: see above")
        time.sleep(0.2)
