"""What the main job measured, and what it leaves behind: records, JSON and percentiles.

In: latencies and counts. Out: `Stage`s and the JSON file, which appears whole or not at all.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: how many items, wall time, and latency of one request in milliseconds."""

    count: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, count: int, seconds: float, latencies_s: Sequence[float]) -> "Stage":
        """The stage of requests that took `latencies_s`."""
        p50, p99 = np.percentile(latencies_s, (50, 99)) * 1000 if len(latencies_s) else (0.0, 0.0)
        return cls(count, round(seconds, 3), round(float(p50), 3), round(float(p99), 3))


@dataclass(frozen=True, slots=True)
class CheckStage(Stage):
    """A stage of checks: the share that agrees with the labels known, and that came from cache."""

    accuracy: float | None
    per_second: float
    cached: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that `up` says at the end.

    problems: (source, reason) of every creative that was refused. served: where things answer.
    """

    stages: Mapping[str, Stage]
    versions: Mapping[str, str]
    served: Mapping[str, Any]
    problems: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def as_json(self) -> bytes:
        """The content of `--json`."""
        value = {
            "stages": {name: asdict(stage) for name, stage in self.stages.items()},
            "versions": dict(self.versions),
            "served": dict(self.served),
            "problems": [{"source": s, "reason": r} for s, r in self.problems],
        }
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `path` so that a reader sees the old file or all of the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
