"""What the prefix cache is worth: throughput with it and without, 200 tokens of policy, 40 of ad.

Two engines in this process take turns (ABBA) over the same asks, stepped by hand. The policy is
filled to whole blocks (224 tokens), as serving does; without the cache it is left at 200.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from serving.checks.policy import label_ids
from serving.llm.asks import Ask
from serving.llm.deployment import open_engine
from serving.llm.vllm_engine import Job, VllmEngine

from .. import random_llm, report, stats
from .opened import random_bundle, stepped, values

POLICY, AD, BLOCK = 200, 40, 32
REQUESTS, ROUNDS, CLIENTS = 32, 10, 64
BAR = 5.0


def run(folder: Path, size: random_llm.Size, scale: float, seed: int) -> dict[str, Any]:
    """Measure."""
    sizes = values()
    bundle = random_bundle(folder, size, seed)
    labels = label_ids(bundle)
    on = open_engine(bundle, sizes)
    off = open_engine(bundle, sizes.model_copy(update={"prefix_caching": False}))
    requests = max(16, round(REQUESTS * scale))

    def subject(raw: VllmEngine, policy: int, stream: int) -> Callable[[int], float]:
        numbers = itertools.count()

        def taken(_: int) -> float:
            random = np.random.default_rng((seed, stream, next(numbers)))
            shared = tuple(range(10, 10 + policy))
            ads = random.integers(10, 500, (requests, AD))
            jobs = [
                Job(f"{stream}-{row}", Ask((*shared, *map(int, ad))), labels)
                for row, ad in enumerate(ads)
            ]
            before = time.process_time()
            stepped(raw, jobs, CLIENTS)
            return (time.process_time() - before) / requests

        return taken

    filled = -(-POLICY // BLOCK) * BLOCK
    subjects = {"cache": subject(on, filled, 0), "none": subject(off, POLICY, 1)}
    for one in subjects.values():
        one(0)
    taken = stats.abba(subjects, max(2, round(ROUNDS * scale)))
    gain = stats.ratio(taken["none"], taken["cache"])
    rows = [
        {"subject": name, "per_cpu_s": float(1 / np.median(seconds))}
        for name, seconds in taken.items()
    ]
    report.table(f"Checks: prefix cache, {POLICY}/{AD} tokens", rows)
    return {"per_cpu_s": {r["subject"]: r["per_cpu_s"] for r in rows}} | {
        "gain": gain.judged(BAR, least=True)
    }
