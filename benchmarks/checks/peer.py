"""Checks over HTTP beside vLLM's own scoring server, in requests per CPU-second of the servers.

Both serve the same random model with the same engine's sizes: `service`, the checks' HTTP app and
its engine in one process of ours, a relevance check a request; `vllm`, `POST /generative_scoring`
with the same token ids. They take turns (ABBA), 64 callers from another process, each ad new.
"""

import asyncio
import http.client
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil

from export import Bundle
from feature_store.ports import free_port
from serving.config import apply_environment
from serving.sizes import LlmValues

from .. import random_llm, report, stats
from ..errors import InvalidRunError
from .cached import Handle, serving
from .opened import Desk, opened, random_bundle, values
from .overhead import layout, words

REQUESTS, ROUNDS, CLIENTS = 128, 3, 64
BAR = 1.15
START_S = 240.0
MODULE = "vllm.entrypoints.openai.api_server"


def run(folder: Path, size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure. Raises InvalidRunError when one does not answer."""
    sizes = values()
    bundle = random_bundle(folder, size, seed, sees=False)
    requests = max(CLIENTS, round(REQUESTS * scale))
    with _peer(bundle, sizes) as (process, port), opened(bundle, sizes) as desk:
        apply_environment({"TESSERA_REDIS_URL": desk.url, "TESSERA_MODELS": str(folder / "models")})
        taken = desk.runner.run(_compared(desk, (process, port), requests, scale))
    gain = stats.ratio(taken["vllm"], taken["service"])
    rows = [{"server": n, "per_cpu_s": float(1 / np.median(t))} for n, t in taken.items()]
    report.table("Checks over HTTP: requests per CPU-second of the servers", rows)
    return {"servers": rows, "requests_a_block": requests, "gain": gain.judged(BAR, least=True)}


async def _compared(
    desk: Desk, peer: tuple[psutil.Process, int], requests: int, scale: float
) -> dict[str, Any]:
    process, peer_port = peer
    async with serving(Handle(desk.bridge)) as port:
        numbers = itertools.count(1)

        def service(_: int) -> float:
            bodies = [_check(ad) for ad in _ads(next(numbers), requests)]
            before = time.process_time() + _cpu_s(desk.valkey)
            _send(port, "/relevance", bodies)
            return (time.process_time() + _cpu_s(desk.valkey) - before) / requests

        def vllm(_: int) -> float:
            bodies = [_scoring(desk, ad) for ad in _ads(next(numbers), requests)]
            before = _cpu_s(process)
            _send(peer_port, "/generative_scoring", bodies)
            return (_cpu_s(process) - before) / requests

        subjects: dict[str, Callable[[int], float]] = {"service": service, "vllm": vllm}

        def turns() -> Any:
            stats.abba(subjects, 1)
            return stats.abba(subjects, max(2, round(ROUNDS * scale)))

        return await asyncio.to_thread(turns)


def _ads(block: int, requests: int) -> range:
    first = block * 1_000_003 * requests
    return range(first, first + requests)


def _check(ad: int) -> bytes:
    title, text = words(ad)
    ads = [{"title": title, "text": text}]
    return orjson.dumps({"query": "red shoes", "ads": ads, "deadline_ms": 60_000})


def _scoring(desk: Desk, ad: int) -> bytes:
    ids = list(layout(desk, ad).ids)
    body = {"query": ids[:1], "items": [ids[1:]], "label_token_ids": list(desk.labels)}
    return orjson.dumps(body | {"add_special_tokens": False, "apply_softmax": False})


def _cpu_s(process: psutil.Process) -> float:
    all_of_it = [process, *process.children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in all_of_it)


def _send(port: int, path: str, bodies: Sequence[bytes]) -> None:
    """Every body once, from a process of its own, CLIENTS at a time."""
    command = [sys.executable, "-m", "benchmarks.checks.callers", str(port), path, str(CLIENTS)]
    ran = subprocess.run(command, input=b"\n".join(bodies), capture_output=True, timeout=300)
    if ran.returncode:
        raise InvalidRunError(f"{path}: {ran.stderr[-500:]!r}")


@contextmanager
def _peer(bundle: Bundle, sizes: LlmValues) -> Iterator[tuple[psutil.Process, int]]:
    port = free_port()
    options = {
        "--model": bundle.directory,
        "--port": port,
        "--host": "127.0.0.1",
        "--dtype": sizes.dtype,
        "--block-size": 32,
        "--kv-cache-memory-bytes": sizes.kv_cache_bytes,
        "--max-num-seqs": sizes.max_sequences,
        "--max-num-batched-tokens": sizes.max_batched_tokens,
        "--max-model-len": int(str(bundle.manifest.metadata["context"])),
        "--load-format": "safetensors",
        "--uvicorn-log-level": "error",
    }
    command = [sys.executable, "-m", MODULE, "--enforce-eager"]
    command += [str(part) for pair in options.items() for part in pair]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _wait(running, port)
        yield psutil.Process(running.pid), port
    finally:
        running.terminate()
        running.communicate(timeout=60)


def _wait(running: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if running.poll() is not None:
            raise InvalidRunError(f"vLLM's server ended: {running.communicate()[1][-1000:]!r}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.5)
        finally:
            connection.close()
    raise InvalidRunError(f"vLLM's server did not answer within {START_S:g} s")
