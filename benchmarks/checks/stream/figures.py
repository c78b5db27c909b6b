"""The stream's figures from what passed through it.

In: of each stream its creatives, the model's verdicts and the cascade's. Out: shares, intervals,
bars, verdicts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.checks.policy import Policy
from serving.checks.verdicts import Risk

from ... import report
from . import audit
from .creatives import Made, truth_of
from .passing import Passed

LLM_BAR, RECALL_BAR, DISAGREEMENT_BAR = 0.01, 0.99, 0.005


# One stream: its creatives, the model's verdicts, what the cascade made of them; by number.
Stream = tuple[Mapping[int, Made], Mapping[int, Risk], Passed]


def figures(policy: Policy, streams: Sequence[Stream], seed: int) -> dict[str, Any]:
    """All of them, by check and over all streams; `differ` and what says so by creative."""
    several = [_rows(policy, stream) for stream in streams]
    rows = audit.joined(several)
    got = [passed.verdicts[n] for _, _, passed in streams for n in sorted(passed.verdicts)]
    read = [full[n] for _, full, passed in streams for n in sorted(passed.verdicts)]
    counted = [passed.sources[n] for _, _, passed in streams for n in sorted(passed.verdicts)]
    total = sum(counted, Counter())
    checks, each = float(rows.weight.sum()), np.ones(len(got))
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
        "streams": [_one(one) for one in several],
        "creatives_seen": len(got),
        "clusters_seen": len(set(rows.cluster.tolist())),
        "floor_without_router": round(len(set(rows.cluster.tolist())) / checks, 5),
        "cache_alone": round(len(got) / checks, 5),
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


def _rows(policy: Policy, stream: Stream) -> audit.Rows:
    made, full, passed = stream
    there = sorted(passed.verdicts)
    got, read = [passed.verdicts[n] for n in there], [full[n] for n in there]
    counted = [passed.sources[n] for n in there]
    return audit.Rows(
        np.array([made[n].cluster for n in there]),
        truth_of([made[n] for n in there], policy.categories),
        audit.above(policy, read),
        audit.above(policy, got),
        np.array([audit.differs(policy, a, b) for a, b in zip(got, read, strict=True)]),
        np.array([one["llm"] for one in counted], float),
        np.array([sum(one.values()) - one["llm"] for one in counted], float),
    )


def _one(rows: audit.Rows) -> dict[str, float]:
    """The shares of one stream, without intervals."""
    return {
        "llm_share": round(float(rows.llm.sum() / rows.weight.sum()), 5),
        "disagreement": round(float((rows.reused * rows.differs).sum() / rows.reused.sum()), 5),
    }


def _pair(found: tuple[float, float]) -> dict[str, float]:
    return {"precision": round(found[0], 4), "recall": round(found[1], 4)}
