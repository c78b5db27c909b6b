"""The stream's figures from what passed through it.

In: creatives, the model's verdicts and the cascade's. Out: shares with intervals, bars, verdicts.
"""

from collections import Counter
from typing import Any

import numpy as np

from serving.checks.policy import Policy
from serving.checks.verdicts import Risk

from ... import report
from . import audit
from .creatives import Made, truth_of
from .passing import Passed

LLM_BAR, RECALL_BAR, DISAGREEMENT_BAR = 0.01, 0.99, 0.005


def figures(
    policy: Policy, made: list[Made], full: list[Risk], passed: Passed, seed: int
) -> dict[str, Any]:
    """All of them, by check; `differ` and what says so by creative."""
    there = sorted(passed.verdicts)
    got = [passed.verdicts[n] for n in there]
    read = [full[n] for n in there]
    counted = [passed.sources[n] for n in there]
    rows = audit.Rows(
        np.array([made[n].cluster for n in there]),
        truth_of([made[n] for n in there], policy.categories),
        audit.above(policy, read),
        audit.above(policy, got),
        np.array([audit.differs(policy, a, b) for a, b in zip(got, read, strict=True)]),
        np.array([one["llm"] for one in counted], float),
        np.array([sum(one.values()) - one["llm"] for one in counted], float),
    )
    total = sum(counted, Counter())
    checks, each = float(rows.weight.sum()), np.ones(len(there))
    llm = audit.share(rows, rows.llm, rows.weight, seed)
    differing = audit.share(rows, rows.reused * rows.differs, rows.reused, seed)
    flags = np.array([a.verdict == "allow" for a in got]) != np.array(
        [b.verdict == "allow" for b in read]
    )
    by = []
    for maker in ("llm", "duplicate", "router"):
        own = np.array([one.by == maker for one in got])
        by.append(
            {
                "made_by": maker,
                "creatives": int(own.sum()),
                "checks": float(rows.weight[own].sum()) / checks,
                "differ": round(float(rows.differs[own].mean()) if own.any() else 0.0, 4),
                "differ_by_check": round(float(rows.weight[own & rows.differs].sum()) / checks, 5),
            }
        )
    report.table("Checks: a stream with near copies, by who made the verdict", by)
    kept = audit.recall_kept(rows, rows.weight, seed)
    result = {
        "checks": int(checks),
        "creatives_seen": len(there),
        "clusters_seen": len(set(rows.cluster.tolist())),
        "floor_without_router": round(len(set(rows.cluster.tolist())) / checks, 5),
        "cache_alone": round(len(there) / checks, 5),
        "sources": dict(total),
        "made_by": by,
        "model": _pair(audit.scores(rows, rows.full, rows.weight)),
        "cascade": _pair(audit.scores(rows, rows.got, rows.weight)),
        "llm_share": llm.judged(LLM_BAR),
        "recall_kept": kept.judged(RECALL_BAR, least=True),
        "recall_kept_by_creative": audit.recall_kept(rows, each, seed).shown(),
        "disagreement": differing.judged(DISAGREEMENT_BAR),
        "disagreement_allow_or_not": audit.share(
            rows, rows.reused * flags, rows.reused, seed
        ).shown(),
    }
    shown = ("floor_without_router", "llm_share", "recall_kept", "disagreement")
    report.say(", ".join(f"{name}: {result[name]}" for name in shown))
    return result


def _pair(found: tuple[float, float]) -> dict[str, float]:
    return {"precision": round(found[0], 4), "recall": round(found[1], 4)}
