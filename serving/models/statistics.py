"""Counts and times of one version, as the protocol's statistics extension reports them.

In: each request's outcome and each batch. Out: plain sums, nanoseconds. They are this replica's;
what is summed over replicas is in the metrics.
"""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from serving.batcher import Answer, Computed


@dataclass(slots=True)
class _Sum:
    count: int = 0
    ns: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.ns += round(seconds * 1e9)

    def document(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class Statistics:
    """Sums since the version was opened."""

    rows: int = 0
    batches: int = 0
    last_ms: int = 0
    stages: dict[str, _Sum] = field(default_factory=lambda: defaultdict(_Sum))
    by_size: dict[int, dict[str, _Sum]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(_Sum))
    )

    def executed(self, rows: int, batch: Computed[Any]) -> None:
        """Count one batch of `rows`."""
        self.batches += 1
        sums = self.by_size[rows]
        sums["compute_input"].add(batch.input_s)
        sums["compute_infer"].add(batch.compute_s)
        sums["compute_output"].add(batch.output_s)

    def succeeded(self, rows: int, seconds: float, stages: Iterable[Answer[Any]]) -> None:
        """Count one request of `rows` that was answered in `seconds`."""
        self.rows += rows
        self.last_ms = time.time_ns() // 1_000_000
        self.stages["success"].add(seconds)
        for stage in stages:
            self.stages["queue"].add(stage.queue_s)
            self.stages["compute_input"].add(stage.input_s)
            self.stages["compute_infer"].add(stage.compute_s)
            self.stages["compute_output"].add(stage.output_s)

    def failed(self, seconds: float) -> None:
        """Count one request that was refused or failed."""
        self.stages["fail"].add(seconds)

    def document(self, name: str, version: str) -> dict[str, Any]:
        """One entry of `model_stats`."""
        kinds = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        return {
            "name": name,
            "version": version,
            "last_inference": self.last_ms,
            "inference_count": self.rows,
            "execution_count": self.batches,
            "inference_stats": {kind: self.stages[kind].document() for kind in kinds},
            "batch_stats": [
                {"batch_size": size, **{kind: total.document() for kind, total in sums.items()}}
                for size, sums in sorted(self.by_size.items())
            ],
        }
