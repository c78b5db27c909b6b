"""All figures of served models, in one Serve instance: `python -m benchmarks models`.

In: a size of models, a scale. Out: throughput at saturation, latency of one caller, random
arrivals. This process is the load generator; the models are served by processes of their own.
"""

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import uvloop

from export import Repository
from serving.session import open_session

from .. import report, routes, stats
from ..http1 import Http
from ..serve_stages import CONTROL, Contender, Stage
from ..serve_system import NotServingError
from . import litserve_peer, made, peers, queueing, saturation, served
from .client import LIVE_RPC, Client, feed, graph_of
from .rollout import Rollout

READY_S = 60.0
ROUNDS = 300
BAR_MS = 0.5  # above in-process run and empty route, p50, one caller
# Best goodput over LitServe's: not worse on an image tower, better on a text tower.
IMAGE_BAR, TEXT_BAR, TEXT_CALLERS, TEXT_S = 1.0, 1.5, 64, 6.0


def run(size: made.Size, parts: Sequence[str], scale: float) -> dict[str, Any]:
    """Measure some parts; the INT8 tower's saturation always, which "arrivals" are planned by."""
    names = (*made.NAMES, made.MINILM) if "litserve" in parts else made.NAMES
    place = made.repository(size, names=names)
    repository = Repository(place)
    peer = made.VIT_INT8 if "serve_batch" in parts else ""
    # The generator's own pauses would be taken for the servers'.
    gc.collect()
    gc.freeze()
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    full = size == made.FULL  # of tiny models times say nothing, and a busy machine may test them
    with served.started(place, names, peer, gives_way=full) as front, runner:
        client = runner.run(_connect(front, repository))
        try:
            runner.run(_ready(client, names))
            found: dict[str, Any] = {"models": size.name}
            if "one_caller" in parts:
                found["one_caller"] = _alone(runner, client, front, repository, scale)
            models = () if "saturation" in parts else (made.VIT_INT8,)
            rates = saturation.run(runner, client, repository, scale, models)
            peak = rates["models"][made.VIT_INT8]["rows_per_s"]["served"]
            found["saturation"] = rates
            if "arrivals" in parts:
                args = (runner, client, repository, made.VIT_INT8, scale)
                found["arrivals"] = {"model": made.VIT_INT8, **queueing.run(*args)}
            if "serve_batch" in parts:
                args_ = (client, front, made.VIT_INT8, peak, scale)
                found["serve_batch"] = runner.run(peers.serve_batch(*args_))
            if "litserve" in parts:
                found["litserve"] = _beside_litserve(runner, client, repository, size, peak, scale)
            if "rollout" in parts:
                made.again(made.VIT_INT8, place)
                rolled = Rollout(runner, client, front, repository, made.VIT_INT8)
                found["rollout"] = rolled.measure(peak, scale)
        finally:
            runner.run(client.close())
    return found


def _beside_litserve(
    runner: asyncio.Runner,
    client: Client,
    repository: Repository,
    size: made.Size,
    peak: float,
    scale: float,
) -> dict[str, Any]:
    """An image tower and a text tower."""
    image = litserve_peer.rows(client, made.VIT_INT8, peak, IMAGE_BAR)
    text = litserve_peer.texts(client, made.MINILM, size.text["vocab_size"], TEXT_BAR)
    seconds = max(TEXT_S * scale, 0.5)
    rates = [
        runner.run(saturation.served(text.ours(None), TEXT_CALLERS, seconds)) for _ in range(2)
    ]
    return {
        subject.model: litserve_peer.run(runner, repository, subject, scale)
        for subject in (image, replace(text, peak=max(rates)))
    }


async def _ready(client: Client, names: Sequence[str]) -> None:
    """Until every model answers: the ingress hears of new replicas a little after they run."""
    deadline = time.monotonic() + READY_S
    calls = [
        (name, call)
        for name in names
        for call in (client.infer(name, 1), client.infer_grpc(name, 1))
    ]
    for name, call in calls:
        while (outcome := await call(0)) != "ok":
            if time.monotonic() > deadline:
                raise NotServingError(f"model {name} still answers {outcome} after {READY_S:.0f} s")
            await asyncio.sleep(0.1)


async def _connect(front: served.Front, repository: Repository) -> Client:
    return Client(front, repository)


def _alone(
    runner: asyncio.Runner,
    client: Client,
    front: served.Front,
    repository: Repository,
    scale: float,
) -> dict[str, Any]:
    """One caller of a small model over each protocol, beside its parts."""
    import orjson

    name, graph = graph_of(repository, made.SMALL)
    session = open_session(repository.open(made.SMALL), name)
    tensors = feed(graph, 1, np.random.default_rng(0))
    ((input_name, row),) = tensors.items()
    http = Http(front.http)
    asked = {"name": input_name, "datatype": "FP32", "shape": [1, 64], "data": row[0].tolist()}
    infer = http.request(
        "POST", f"/v2/models/{made.SMALL}/infer", orjson.dumps({"inputs": [asked]})
    )
    ready = http.request("GET", f"/v2/models/{made.SMALL}/ready")

    async def bare(_: int) -> str:
        session.run(tensors)
        return "ok"

    def over_http(request: bytes) -> Any:
        async def call(_: int) -> str:
            status, _body = await http.send(request)
            return "ok" if status == 200 else f"HTTP {status}"

        return call

    grpc_call = client.infer_grpc(made.SMALL, 1)
    kinds = {
        "http": (over_http(infer), over_http(ready)),
        "grpc": (grpc_call, client.call(LIVE_RPC, made.SMALL, [b""])),
    }
    found: dict[str, Any] = {}
    for protocol, (own, empty) in kinds.items():
        parts = {"tessera": own, CONTROL: own, "empty route": empty, "bare session": bare}
        stage = Stage(protocol, tuple(Contender(n, c) for n, c in parts.items()))
        taken = runner.run(routes.turns(stage, max(int(ROUNDS * scale), 10)))
        above = stats.excess(taken["tessera"], (taken["empty route"], taken["bare session"]))
        found[protocol] = {
            "p50_ms": {n: float(np.median(v)) for n, v in taken.items()},
            "above_ms": above.judged(BAR_MS),
            "control": stats.ratio(taken[CONTROL], taken["tessera"]).shown(),
        }
    http.close()
    rows = [
        {
            "": p,
            **f["p50_ms"],
            "above ms": f["above_ms"]["value"],
            "bar": BAR_MS,
            "verdict": f["above_ms"]["verdict"],
        }
        for p, f in found.items()
    ]
    report.table("a small model, one caller, p50 ms", rows)
    return found
