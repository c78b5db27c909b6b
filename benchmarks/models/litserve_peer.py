"""LitServe with the same ONNX file as a peer, in an environment and a process of its own.

In: a model. Out: how LitServe, at the best of a few settings, does beside us. Images travel as
base64 in JSON, as in LitServe's own examples, and texts as lists of token ids; ours carry what
`/v1/encode` would send, padded to a few lengths.
"""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
from . import texts as made_texts
from .arrivals import arrive
from .client import Client
from .niceness import give_way

PINNED = ("litserve==0.2.19", "onnxruntime==1.32.0", "numpy==2.4.6")
SETTINGS = ((8, 0.0), (8, 0.005), (32, 0.0))  # rows of a batch, seconds to wait for one
READY_S = 120.0
STOP_S = 10.0
TUNE_S = 6.0


@dataclass(frozen=True, slots=True)
class Subject:
    """One model beside LitServe. peak: our requests a second at saturation.

    ours: makes our calls, given a timeout in seconds or None. bodies: the same rows as LitServe
    takes them. texts: they are token ids. bar: of our best goodput over its.
    """

    model: str
    peak: float
    ours: Callable[[float | None], Request]
    bodies: list[bytes]
    texts: bool
    bar: float


def rows(client: Client, model: str, peak: float, bar: float) -> Subject:
    """A model of one input of fixed size."""
    packed = [base64.b64encode(row).decode() for row in client.rows_of(model)]
    bodies = [orjson.dumps({"row": row}) for row in packed]
    return Subject(model, peak, lambda limit_s: client.infer(model, 1, limit_s), bodies, False, bar)


def texts(client: Client, model: str, vocabulary: int, bar: float) -> Subject:
    """A text tower; its peak is still to be measured."""
    found = made_texts.texts(vocabulary)
    feeds = [made_texts.padded(ids) for ids in found]
    bodies = [orjson.dumps({"tokens": ids.tolist()}) for ids in found]

    def ours(limit_s: float | None) -> Request:
        return client.infer_these(model, feeds, limit_s)

    return Subject(model, 0.0, ours, bodies, True, bar)


def run(
    runner: asyncio.Runner, repository: Repository, subject: Subject, scale: float
) -> dict[str, Any]:
    """Beside LitServe, at the best of SETTINGS; says why where it cannot be had."""
    try:
        interpreter = python(FOLDER, PINNED)
        bundle = repository.open(subject.model)
        taken = {}
        for setting in SETTINGS:
            with _started(interpreter, bundle, setting, subject.texts) as (url, _):
                seconds = max(TUNE_S * scale, 0.5)
                taken[setting] = runner.run(_arrive(url, subject, seconds))
        best = min(taken, key=lambda setting: taken[setting])
        with _started(interpreter, bundle, best, subject.texts) as (url, group):
            found = runner.run(_compared(url, group, subject, scale))
    except NoPeerError as error:
        report.say(f"without LitServe: {error}")
        return {"left_out": str(error)}
    return {"model": subject.model, "peer_tuned_to": list(best), "pinned": list(PINNED), **found}


async def _arrive(url: str, subject: Subject, seconds: float) -> float:
    http = Http(url)
    found = await arrive(_calls(http, subject), 0.8 * subject.peak, seconds)
    http.close()
    return found.p99_ms()


async def _compared(url: str, group: int, subject: Subject, scale: float) -> dict[str, Any]:
    """group: LitServe's processes. They stand still in our turns: idle they take a core or so."""

    def turn_of(name: str) -> None:
        os.killpg(group, signal.SIGCONT if name == "litserve" else signal.SIGSTOP)

    http = Http(url)
    turn_of("tessera")
    limit_s = await peers.limit(subject.ours(None), subject.peak, scale)
    subjects = {"tessera": subject.ours(limit_s), "litserve": _calls(http, subject)}
    args = (subject.peak, limit_s, scale, subject.bar, turn_of)
    found = await peers.compared(subjects, *args)
    http.close()
    return found


def _calls(http: Http, subject: Subject) -> Request:
    requests = [http.request("POST", "/predict", body) for body in subject.bodies]

    async def call(number: int) -> str:
        status, _ = await http.send(requests[number % len(requests)])
        return "ok" if status == 200 else f"HTTP {status}"

    return call


@contextmanager
def _started(
    interpreter: Path, bundle: Bundle, setting: tuple[int, float], texts: bool
) -> Iterator[tuple[str, int]]:
    """A server: its address, and its process group. Raises NoPeerError."""
    graph = default_graph(bundle.manifest)
    spec = bundle.manifest.graphs[graph].inputs[0]
    asked = {
        "file": str(bundle.path(graph).absolute()),
        "texts": texts,
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
        give_way(process.pid)
        yield url, process.pid
    finally:  # its workers too
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
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
