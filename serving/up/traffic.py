"""The main job as a client: it speaks to its own front door like anyone else.

In: creatives, over HTTP. Out: what was stored, what every lookup said, and how long it took.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from serving.errors import MainJobError
from serving.up.creatives import Creative
from serving.up.progress import step
from serving.up.stages import Stage

CONCURRENCY = 8
ATTEMPTS = 4
BACK_OFF_S = 0.25
READY_S = 60.0
LOOKUP_IDS = 100
TIMED_REQUESTS = 200
FIRST_DEADLINE_MS = 1000  # the first lookups fill caches; later ones have the default


@dataclass(frozen=True, slots=True)
class Ingested:
    """stored: ids now in the store; problems: (source, reason); version: of the semantic IDs."""

    stage: Stage
    stored: tuple[int, ...]
    problems: tuple[tuple[str, str], ...]
    version: str | None


@dataclass(frozen=True, slots=True)
class LookedUp:
    """missing: (id, status) of every stored ad that is no HIT; blocked: how many are BLOCKED."""

    stage: Stage
    missing: tuple[tuple[int, str], ...]
    blocked: int
    version: str


class FrontDoor:
    """Calls the applications at `base`; `alive` says whether the embedded store still runs."""

    def __init__(self, base: str, key: str | None, alive: Callable[[], bool]) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=CONCURRENCY * 2)
        self._client = httpx.AsyncClient(
            base_url=base, headers=headers, timeout=60.0, limits=limits, trust_env=False
        )
        self._alive = alive

    async def __aenter__(self) -> "FrontDoor":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def wait_ready(self, prefixes: Sequence[str]) -> None:
        """Until every application answers `readyz`; MainJobError names one that does not."""
        deadline = time.monotonic() + READY_S
        for prefix in prefixes:
            while (said := await self.readyz(prefix)) is not None:
                self._check_store("nothing was ingested")
                if time.monotonic() > deadline:
                    raise MainJobError(f"{prefix}/readyz: not ready after {READY_S:.0f} s: {said}")
                await asyncio.sleep(0.1)

    async def ingest(self, creatives: Sequence[Creative]) -> Ingested:
        """PUT every creative; a refused one is a problem, not an end."""
        stored: list[int] = []
        problems: list[tuple[str, str]] = []
        latencies: list[float] = []
        versions: set[str] = set()
        queue = iter(creatives)
        started = time.monotonic()
        with step("ingesting creatives", len(creatives)) as advance:

            async def work() -> None:
                for creative in queue:
                    begun = time.perf_counter()
                    done = f"{len(stored)} of {len(creatives)} creatives were stored before"
                    answer = await self._put(creative, done)
                    if answer.status_code == 200:
                        latencies.append(time.perf_counter() - begun)
                        stored.append(creative.ad_id)
                        versions.add(answer.json()["version"])
                    else:
                        problems.append((creative.source, _reason(answer)))
                    advance(1)

            await _together([work() for _ in range(CONCURRENCY)])
        seconds = time.monotonic() - started
        stage = Stage.of(len(stored), seconds, latencies)
        return Ingested(stage, tuple(sorted(stored)), tuple(problems), max(versions, default=None))

    async def lookup(self, ids: Sequence[int], pinned: str | None) -> LookedUp:
        """Look every id up once, then time more requests of the same size; `pinned`: a version."""
        started = time.monotonic()
        rows: dict[int, str] = {}
        version = ""
        chunks = [list(ids[at : at + LOOKUP_IDS]) for at in range(0, len(ids), LOOKUP_IDS)]
        with step("looking all of them up", len(ids)) as advance:
            for chunk in chunks:
                answer = await self._lookup(chunk, pinned, FIRST_DEADLINE_MS)
                version = answer["version"]
                rows.update(
                    zip(chunk, map(_outcome, range(len(chunk)), [answer] * len(chunk)), strict=True)
                )
                advance(len(chunk))
        seconds = time.monotonic() - started
        latencies = []
        for turn in range(TIMED_REQUESTS if chunks else 0):
            begun = time.perf_counter()
            await self._lookup(chunks[turn % len(chunks)], pinned)
            latencies.append(time.perf_counter() - begun)
        hits = sum(status == "HIT" for status in rows.values())
        blocked = sum(status == "BLOCKED" for status in rows.values())
        missing = tuple((i, s) for i, s in rows.items() if s not in ("HIT", "BLOCKED"))
        return LookedUp(Stage.of(hits, seconds, latencies), missing, blocked, version)

    async def _lookup(
        self, ids: list[int], pinned: str | None, deadline_ms: int | None = None
    ) -> dict[str, Any]:
        body = {"ad_ids": ids, "version": pinned, "deadline_ms": deadline_ms}
        answer = await self._send("lookups stopped", "POST", "/v1/lookup", json=body)
        if answer.status_code != 200:
            raise MainJobError(f"/v1/lookup answered {answer.status_code}: {_reason(answer)}")
        found: dict[str, Any] = answer.json()
        if found["degraded"]:
            self._check_store("all creatives were stored; lookups stopped")
        return found

    async def _put(self, creative: Creative, done: str) -> httpx.Response:
        files: dict[str, Any] = {"title": (None, creative.title), "text": (None, creative.text)}
        if creative.image is not None:
            try:
                image = await asyncio.to_thread(creative.image.read_bytes)
            except OSError as error:
                return httpx.Response(422, json={"detail": f"cannot be read: {error.strerror}"})
            files["image"] = ("image", image)
        return await self._send(done, "PUT", f"/v1/ads/{creative.ad_id}", files=files)

    async def _send(self, done: str, method: str, path: str, **body: Any) -> httpx.Response:
        """One request, tried again when the other side is busy or restarting."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await self._client.request(method, path, **body)
            except httpx.TransportError as error:
                answer = httpx.Response(503, json={"detail": f"{type(error).__name__}: {error}"})
            if answer.status_code not in (429, 500, 502, 503, 504):
                return answer
            self._check_store(done)
            if attempt < ATTEMPTS:
                await asyncio.sleep(BACK_OFF_S * 2**attempt)
        return answer

    async def post(self, path: str, body: Any) -> httpx.Response:
        """One POST of JSON, tried again when the other side is busy or restarting."""
        return await self._send("all creatives were stored", "POST", path, json=body)

    async def readyz(self, prefix: str) -> str | None:
        """Why an application is not ready; None when it is."""
        try:
            answer = await self._client.get(f"{prefix}/readyz")
        except httpx.TransportError as error:
            return f"{type(error).__name__}"
        return None if answer.status_code == 200 else _reason(answer)

    def _check_store(self, done: str) -> None:
        if not self._alive():
            raise MainJobError(f"the embedded Valkey has ended; {done}; start `up` again")


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first error ends the others and is raised as it is."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _outcome(row: int, answer: dict[str, Any]) -> str:
    """The status of a row; a HIT that lacks its six codes is called so."""
    status: str = answer["status"][row]
    codes = answer["codes"][row]
    return "HIT without six codes" if status == "HIT" and len(codes or ()) != 6 else status


def _reason(answer: httpx.Response) -> str:
    try:
        said = answer.json()
    except ValueError:
        return f"HTTP {answer.status_code}"
    return str(said.get("detail") or said.get("error") or said)
