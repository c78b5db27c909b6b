"""One version of a bundle that is open, warm, and computes batches.

In: named arrays for one of its graphs and a ticket. Out: named arrays and where the time went.
The sessions block in threads of their own; the event loop only queues and hands out.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from export import Bundle
from export.manifest import Manifest
from serving.batcher import Answer, Batcher, Computed, Limits
from serving.cores import available_cores, plan
from serving.errors import InvalidRequestError, NotFoundError, RefusedInputsError, ServingError
from serving.models.datatypes import Array
from serving.models.signature import Work, check
from serving.models.statistics import Statistics
from serving.models.values import Values
from serving.providers import gpu_present
from serving.service_times import ServiceTimes
from serving.session import Runtime, Session, open_session, warm_cost, warm_up
from serving.tensors import Tensors, batch_axis, held_bytes
from serving.waiting import Ticket

# Fine enough that little is computed on padding, few enough that a runtime's buffers settle.
BUCKETS = (
    *(1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128),
    *(160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048),
)

# A rate at least this share of the best one is as good: what is left is measuring error.
NEAR_BEST = 0.9
# Of threads that compute on the CPU, added to the process's own: what answers (the event loop, the
# ingress, other applications) is to run the moment it can, or refusals wait for a batch to end.
COMPUTE_NICE = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """All outputs of a graph for one request, and the stages of each of its batches."""

    version: str
    rows: int
    outputs: Tensors
    stages: tuple[Answer[Tensors], ...]


def default_graph(manifest: Manifest) -> str:
    """The graph that runs when none is named: the only one, `model`, or `encode`."""
    graphs = sorted(manifest.graphs)
    usual = [name for name in ("model", "encode") if name in graphs]
    return graphs[0] if len(graphs) == 1 else (usual or graphs)[0]


def efficient_rows(seconds: Mapping[int, float]) -> int:
    """The largest batch whose rate is near the best measured one.

    Larger is not always faster: once a batch's activations outgrow the caches, every row costs
    more, and whoever arrives meanwhile waits longer.
    """
    rates = {rows: rows / max(taken, 1e-9) for rows, taken in seconds.items()}
    best = max(rates.values())
    return max(rows for rows, rate in rates.items() if rate >= NEAR_BEST * best)


@dataclass(frozen=True, slots=True)
class Runs:
    """How a session is run: so many runs at once, in threads whose niceness is raised by `nice`."""

    at_once: int = 1
    nice: int = 0


class GraphRunner:
    """One graph: its session, its threads and its batcher."""

    def __init__(
        self,
        opened: Callable[[], Session],
        limits: Limits,
        statistics: Statistics,
        runs: Runs,
        values: Values,
    ) -> None:
        """opened: opens the session, in a thread of those that will run it."""
        self._values = values
        # What the session starts inherits the thread's niceness (on Linux it is a thread's own).
        raised = partial(os.nice, runs.nice)
        self._thread = ThreadPoolExecutor(runs.at_once, "session", initializer=raised)
        try:
            self.session = self._thread.submit(opened).result()
            self.limits = limits
            self.axis = batch_axis(self.session.graph)
            sizes = (*(b for b in BUCKETS if b < limits.rows), limits.rows)
            times = self._thread.submit(warm_up, self.session, sizes).result()
        except BaseException:
            self._thread.shutdown()
            raise
        self._statistics = statistics
        self._buckets = tuple(times)
        self.batch_rows = efficient_rows(times)
        bounded = replace(limits, rows=self.batch_rows)
        known = ServiceTimes(times, warm_cost(self.session))
        self._batcher = Batcher(self._compute, bounded, known, runs.at_once)

    async def infer(self, inputs: Tensors, ticket: Ticket) -> tuple[Answer[Tensors], ...]:
        """Answers for the request's pieces, in order; more rows than a batch holds are cut up."""
        work = check(self.session.graph, inputs, self.axis)
        self._values.check(inputs)
        ticket = replace(ticket, nbytes=held_bytes(inputs))
        if work.rows > self.limits.waiting:
            raise InvalidRequestError(
                f"{work.rows} rows: expected at most {self.limits.waiting} a request; send parts"
            )
        step = self._step(work)
        if self.axis is None or work.rows <= step:
            return (await self._batcher.submit(inputs, _for(ticket, work, work.rows)),)
        step = -(-work.rows // -(-work.rows // step))  # parts that are alike
        tasks = []
        for at in range(0, work.rows, step):
            piece = {name: array[at : at + step] for name, array in inputs.items()}
            rows = min(step, work.rows - at)
            submitted = self._batcher.submit(piece, _for(ticket, work, rows))
            tasks.append(asyncio.ensure_future(submitted))
        try:
            return tuple(await asyncio.gather(*tasks))
        finally:  # one piece failed or the caller left: the others need not be computed
            for task in tasks:
                task.cancel()

    @property
    def crowded(self) -> bool:
        """Whether something waits."""
        return self._batcher.waiting_rows > 0

    def foresee(self, inputs: Tensors, ticket: Ticket) -> None:
        """Raise OverloadedError if `infer` would, of inputs that are one batch's."""
        work = check(self.session.graph, inputs, self.axis)
        if work.rows <= self._step(work):
            self._batcher.foresee(_for(ticket, work, work.rows))

    async def close(self) -> None:
        """Answer what waits, then free the session."""
        await self._batcher.drain()
        await self._batcher.close()
        self._thread.shutdown(wait=True)
        self.session.close()

    def _step(self, work: Work) -> int:
        """Rows of the largest batch of such rows."""
        return min(self.batch_rows, max(1, self.limits.cost * work.rows // work.cost))

    async def _compute(self, items: list[Tensors]) -> Computed[Tensors]:
        loop = asyncio.get_running_loop()
        computed = await loop.run_in_executor(self._thread, self._run, items)
        rows = sum(self.rows(item) for item in items)
        self._statistics.executed(rows, computed)
        return computed

    def _run(self, items: list[Tensors]) -> Computed[Tensors]:
        try:
            return self._run_joined(items)
        except RefusedInputsError as error:
            if len(items) == 1:
                return Computed([self._values.explain(error, items[0])], 0.0, 0.0, 0.0)
        # One request's values must not fail those that travelled with it.
        parts = [self._run([item]) for item in items]
        results = [result for part in parts for result in part.results]
        return Computed(results, 0.0, sum(part.compute_s for part in parts), 0.0)

    def _run_joined(self, items: list[Tensors]) -> Computed[Tensors]:
        started = time.perf_counter()
        inputs, counts = self._join(items)
        joined = time.perf_counter()
        outputs = self.session.run(inputs)
        computed = time.perf_counter()
        results: list[Tensors | ServingError] = []
        at = 0
        for count in counts:
            # A copy would cost time, a view keeps the whole batch's output alive for a moment.
            results.append(
                {n: a[at : at + count] for n, a in outputs.items()} if count else outputs
            )
            at += count
        split = time.perf_counter()
        return Computed(results, joined - started, computed - joined, split - computed)

    def rows(self, item: Tensors) -> int:
        """Rows along the batch axis; 1 where there is none."""
        return 1 if self.axis is None else len(next(iter(item.values())))

    def _join(self, items: Sequence[Tensors]) -> tuple[Tensors, list[int]]:
        """One input of a bucket's size, and each item's rows (0: it has no batch axis)."""
        if self.axis is None:
            return items[0], [0]
        counts = [self.rows(item) for item in items]
        total = sum(counts)
        bucket = next((b for b in self._buckets if b >= total), total)
        if len(items) == 1 and bucket == total:
            return items[0], counts
        padded: Tensors = {}
        for name in items[0]:
            parts: list[Array] = [item[name] for item in items]
            if bucket > total:  # the last row again: real values never overflow or divide by zero
                parts.append(np.repeat(parts[-1][-1:], bucket - total, axis=0))
            padded[name] = np.concatenate(parts)
        return padded, counts


class Servable:
    """All graphs of one bundle."""

    def __init__(self, bundle: Bundle, runtime: Runtime, limits: Limits) -> None:
        self.manifest = bundle.manifest
        self.default_graph = default_graph(bundle.manifest)
        self.statistics = Statistics()
        runs = Runs()
        if runtime.device == "cpu" or not gpu_present():
            threads, at_once = plan(available_cores(), runtime.threads)
            runtime, runs = replace(runtime, threads=threads), Runs(at_once, COMPUTE_NICE)
        self.runners = {
            name: GraphRunner(
                partial(open_session, bundle, name, runtime),
                limits,
                self.statistics,
                runs,
                Values.of(bundle.manifest, name),
            )
            for name in sorted(bundle.manifest.graphs)
        }

    @property
    def version(self) -> str:
        return self.manifest.version

    async def infer(self, inputs: Tensors, graph: str | None, ticket: Ticket) -> Outcome:
        """Run one graph (None: the default).

        Raises NotFoundError (no such graph), InvalidRequestError, and what the batcher raises.
        """
        runner = self._runner(graph)
        stages = await runner.infer(inputs, ticket)
        rows = runner.rows(inputs)
        if len(stages) == 1:
            return Outcome(self.version, rows, stages[0].value, stages)
        outputs: Tensors = {
            key: np.concatenate([stage.value[key] for stage in stages]) for key in stages[0].value
        }
        return Outcome(self.version, rows, outputs, stages)

    @property
    def crowded(self) -> bool:
        """Whether something waits for one of the graphs."""
        return any(runner.crowded for runner in self.runners.values())

    def foresee(self, inputs: Tensors, graph: str | None, ticket: Ticket) -> None:
        """Raise OverloadedError if `infer` would for the deadline; or what it raises of inputs."""
        self._runner(graph).foresee(inputs, ticket)

    async def close(self) -> None:
        """Answer what waits, then free the sessions."""
        await asyncio.gather(*(runner.close() for runner in self.runners.values()))

    def _runner(self, graph: str | None) -> GraphRunner:
        name = graph or self.default_graph
        if name not in self.runners:
            raise NotFoundError(
                f"model {self.manifest.name!r} has no graph {name!r}, only {sorted(self.runners)}"
            )
        return self.runners[name]


def _for(ticket: Ticket, work: Work, rows: int) -> Ticket:
    cost, nbytes = work.cost * rows // work.rows, ticket.nbytes * rows // work.rows
    return replace(ticket, rows=rows, cost=cost, nbytes=nbytes, group=work.group)
