"""A new version of a model, while it serves at 30% of what it can: `/v2/repository/.../load`.

In: a client, a front, a model that has two versions in the repository, its rate at saturation. Out:
requests that failed (none may), and the p99 while the version was opened, warmed and swapped over
the p99 before. The same machine opens the new version and answers, as one replica must.
"""

import asyncio
import time
from typing import Any

import numpy as np
import orjson

from export import Repository

from .. import report, stats
from ..errors import InvalidRunError
from ..http1 import Http
from .arrivals import Arrivals, arrive
from .client import Client
from .served import Front

UTILISATION = 0.3
SECONDS = 60.0
LEAD_S = 1.0  # of requests before the load is asked for
P99_BAR = 5.0


class Rollout:
    """One model, and the versions that take turns."""

    def __init__(
        self,
        runner: asyncio.Runner,
        client: Client,
        front: Front,
        repository: Repository,
        model: str,
    ) -> None:
        self._runner = runner
        self._client = client
        self._http = Http(front.http)
        self._versions = repository.versions(model)
        self._model = model

    def measure(self, peak: float, scale: float) -> dict[str, Any]:
        """peak: requests a second at saturation."""
        seconds, rate = max(SECONDS * scale, 2.5), UTILISATION * peak
        call = self._client.infer(self._model, 1)
        steady = self._runner.run(arrive(call, rate, seconds))
        rolling, began, ended = self._runner.run(self._roll(call, rate, seconds))
        during = (rolling.planned >= began) & (rolling.planned < ended)
        taken = rolling.latency_s[during]
        if not len(taken):
            raise InvalidRunError("no request came while the version was rolled out")
        failed = sum(n for kind, n in rolling.counts().items() if kind != "ok")
        size = min(len(taken), len(steady.latency_s))
        random = np.random.default_rng(0)
        before = random.choice(steady.latency_s, size, replace=False)
        ratio = stats.ratio(random.choice(taken, size, replace=False), before, 0.99)
        found = {
            "model": self._model,
            "rate": rate,
            "rollout_s": ended - began,
            "n": int(during.sum()),
            "failed": {"value": failed, "bar": 0, "verdict": "not met" if failed else "met"},
            "outcomes": rolling.counts(),
            "steady_p99_ms": steady.p99_ms(),
            "rolling_p99_ms": float(np.quantile(taken, 0.99) * 1000),
            "p99_over_steady": ratio.judged(P99_BAR),
            "generator_late_p99_s": rolling.late_p99_s,
        }
        keep = ("rollout_s", "n", "steady_p99_ms", "rolling_p99_ms")
        row = {key: found[key] for key in keep} | {"failed": failed, **ratio.judged(P99_BAR)}
        report.table("a version rolled out at 30% utilisation, p99 over steady", [row])
        return found

    async def _roll(self, call: Any, rate: float, seconds: float) -> tuple[Arrivals, float, float]:
        """The arrivals, and when the load began and ended, in seconds of their clock."""
        serves = await self._served()
        other = next(version for version in self._versions if version != serves)
        # As long as the roll-out takes: what is due afterwards is not looked at.
        begun = time.perf_counter() + 0.05
        task = asyncio.create_task(arrive(call, rate, seconds))
        await asyncio.sleep(LEAD_S)
        began = time.perf_counter() - begun
        body = orjson.dumps({"parameters": {"version": other}})
        path = f"/v2/repository/models/{self._model}/load"
        status, said = await self._http.send(self._http.request("POST", path, body))
        ended = time.perf_counter() - begun
        if status != 200 or await self._served() != other:
            raise InvalidRunError(
                f"version {other} was not rolled out: HTTP {status} {said[:200]!r}"
            )
        return await task, began, ended

    async def _served(self) -> str:
        """The version that serves now."""
        request = self._http.request("GET", f"/v2/models/{self._model}")
        _, body = await self._http.send(request)
        return str(orjson.loads(body)["versions"][0])
