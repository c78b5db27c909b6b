"""What a store promises while things go wrong, measured: `python -m benchmarks faults`.

In: names of faults. Out: for each what its bar is about, with its interval or its worst case. Each
runs on servers of its own and is bounded in time: a few minutes for all of them.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from .. import report
from . import channel, flips, mixing, shards, takedown

_ALL: dict[str, Callable[[float, int], dict[str, Any]]] = {
    "takedown": takedown.run,
    "flips": flips.run,
    "shards": shards.run,
    "channel": channel.run,
    "mixing": mixing.run,
}


def run(names: Sequence[str], scale: float, seed: int) -> dict[str, Any]:
    """Measure some faults."""
    found: dict[str, Any] = {"scale": scale, "faults": {}}
    for name in names:
        begun = time.monotonic()
        found["faults"][name] = _ALL[name](scale, seed)
        report.say(f"{name}: {time.monotonic() - begun:.0f} s")
    report.table("promises under faults", [*_rows(found["faults"])])
    return found


def _rows(found: dict[str, Any], path: str = "") -> list[dict[str, Any]]:
    """Everything that has a verdict, by its path."""
    rows = []
    for name, value in found.items():
        if not isinstance(value, dict):
            continue
        if "verdict" in value:
            row = {"promise": f"{path}{name}", "found": value["value"], "bar": value["bar"]}
            rows.append({**row, "n": value.get("n", ""), "verdict": value["verdict"]})
        else:
            rows += _rows(value, f"{path}{name}, ")
    return rows
