"""Begins versions: gives a name its number, and carries block marks over to it."""

import numpy as np
from numpy.typing import NDArray

from . import catalog, record, scripts
from .catalog import View
from .core import Core, Job, job, refresh, run_jobs
from .errors import UnknownVersionError
from .grouping import record_keys
from .keys import TAGS
from .ops import Op
from .record import ABSENT, CODES, NO_CODE
from .wire import command

_PART = 128  # marks per script


def tombstones(ids: NDArray[np.int64], number: int) -> np.ndarray:
    """Records (n,) that stand where a version does not know an ad: no codes, no marks yet."""
    n = len(ids)
    return record.encode(
        ids,
        np.full((n, CODES), NO_CODE, np.uint16),
        np.zeros(n, np.uint16),
        number,
        np.full(n, ABSENT, np.uint64),
    )


def carry(core: Core, number: int, deadline: float) -> Op[None]:
    """Make every ad that is blocked now BLOCKED in a version that begins."""
    listing = [Job(tag, command("HKEYS", core.keys.marks(tag))) for tag in range(TAGS)]
    answers = yield from run_jobs(core, listing, deadline)
    jobs = []
    for tag, answer in enumerate(answers):
        fields = answer if isinstance(answer, list) else []
        blob = b"".join(name for name in fields if isinstance(name, bytes) and len(name) == 8)
        marked = np.frombuffer(blob, np.int64)
        for start in range(0, len(marked), _PART):
            part = marked[start : start + _PART]
            keys = [core.keys.marks(tag), *record_keys(core.keys, core.view, part, [number])]
            stones = tombstones(part, number).tobytes()
            jobs.append(job(scripts.CARRY, tag, keys, part.tobytes(), stones))
    yield from run_jobs(core, jobs, deadline)


def begin(core: Core, name: str | None, deadline: float) -> Op[tuple[View, int]]:
    """Number of a version to write to (None: the active one), in the versions as they are.

    Makes what is not there yet.
    """
    # Anew each time: a process that only writes would never hear that another version serves.
    view = yield from refresh(core, deadline)
    while True:
        if name is None and view.active:
            return view, view.active
        wanted = catalog.FIRST if name is None else catalog.check_name(name)
        if wanted in view.retiring:
            raise UnknownVersionError(
                f"version {wanted!r} is being retired; wait until it is gone, or use another name"
            )
        number = view.numbers.get(wanted, 0)
        if number and name is not None:
            return view, number
        last = view.last if number else view.last + 1
        number = number or last
        # An empty store begins with FIRST, whether its writer names it or not.
        serves = name is None or (wanted == catalog.FIRST and not view.active)
        change = View(b"", number if serves else view.active, view.previous, last)
        begun = wanted in view.numbers
        bits = view.bits.get(number if begun else view.active)
        bits = bits if begun else core.wanted.begin(bits)
        entries = {wanted: catalog.entry(number, catalog.READY, bits)}
        yield from catalog.commit(core.keys, core.first, view, change, entries, deadline)
        view = yield from refresh(core, deadline)
        if view.numbers.get(wanted) == number:
            yield from carry(core, number, deadline)
