"""How many cores this process may use, which is seldom how many the machine has.

In: CPU affinity and the cgroups that a container's limits are kept in. Out: threads for a session.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def available_cores(cgroup: Path = CGROUP, own: Path = OWN) -> int:
    """Cores by affinity, cut by the tightest quota of the process's cgroups; at least 1.

    cgroup: where the hierarchy is mounted. own: the process's place in it. In a container with a
    namespace of its own that is the root; otherwise the quota is of a folder below.
    """
    cores = float(len(os.sched_getaffinity(0)))
    for folder in _folders(cgroup, own):
        quota = _quota(folder)
        if quota is not None:
            cores = min(cores, quota)
    return max(1, math.floor(cores))


def plan(cores: int, threads: int | None = None) -> tuple[int, int]:
    """Threads of one run, and how many runs go on at once; threads: what was asked for, if any.

    Two runs on half of the cores each: threads of one run wait for each other after every
    operator, and for whatever else takes one of their cores; two runs do not.
    """
    if threads is None:
        threads = max(1, cores // 2)
    return threads, 2 if 2 * threads <= cores else 1


def _folders(cgroup: Path, own: Path) -> Iterator[Path]:
    """The root and every cgroup down to the process's own, for both versions."""
    yield cgroup
    yield cgroup / "cpu"
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:  # hierarchy:controllers:path (cgroups(7))
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base = cgroup
        elif "cpu" in controllers.split(","):
            base = cgroup / "cpu"
        else:
            continue
        for part in Path(path).parts[1:]:
            base = base / part
            yield base


def _quota(folder: Path) -> float | None:
    """Cores that a cgroup allows; None: it sets no limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()  # version 1
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not (quota.isdigit() and period.isdigit() and int(period) > 0):
        return None
    return int(quota) / int(period)
