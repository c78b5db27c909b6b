"""The life of versions: list, activate, roll back, retire.

In: names. Out: operations. Activation replaces one pointer that every lookup reads along with its
records; nothing ever expires by time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from . import catalog
from .catalog import RETIRING, View
from .core import TIMEOUT_S, Core, Job, refresh, run_jobs
from .errors import ConflictError, CoverageError, UnknownVersionError, VersionInUseError
from .keys import TAGS
from .lookup import unknown
from .ops import Op, Pause
from .scan import RecordBatches, count_held
from .wire import command

State = Literal["active", "previous", "kept", "retiring"]
_ATTEMPTS = 50
_REMOVE = 512  # keys per UNLINK
_REMOVE_PAUSE_S = 0.002


@dataclass(frozen=True, slots=True)
class Version:
    """One version of all ads' features. `records` counts ads with codes."""

    name: str
    number: int
    state: State
    records: int


def versions(core: Core) -> Op[list[Version]]:
    """All versions, oldest first."""
    deadline = time.monotonic() + TIMEOUT_S
    view = yield from refresh(core, deadline)
    jobs = [Job(tag, command("HGETALL", core.keys.counts(tag))) for tag in range(TAGS)]
    counts: dict[int, int] = {}
    for answer in (yield from run_jobs(core, jobs, deadline)) if view.numbers else []:
        pairs = answer if isinstance(answer, list) else []
        for number, count in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(number, bytes) and isinstance(count, bytes):
                counts[int(number)] = counts.get(int(number), 0) + int(count)
    return [
        Version(name, number, _state(view, name), counts.get(number, 0))
        for name, number in sorted(view.numbers.items(), key=lambda item: item[1])
    ]


def _state(view: View, name: str) -> State:
    number = view.numbers[name]
    if number == view.active:
        return "active"
    if name in view.retiring:
        return "retiring"
    return "previous" if number == view.previous else "kept"


def _find(core: Core, name: str) -> Op[Version]:
    for version in (yield from versions(core)):
        if version.name == name:
            return version
    raise unknown(core, name)


def _change(core: Core, decide: Callable[[View], tuple[View, dict[str, str]] | None]) -> Op[None]:
    """Commit what `decide` makes of the versions; None: nothing is left to do."""
    deadline = time.monotonic() + TIMEOUT_S
    for _ in range(_ATTEMPTS):
        view = yield from refresh(core, deadline)
        decision = decide(view)
        if decision is None:
            return
        change, entries = decision
        if (yield from catalog.commit(core.keys, core.first, view, change, entries, deadline)):
            yield from refresh(core, deadline)
            return
    raise ConflictError(
        f"others changed the versions {_ATTEMPTS} times while this change was tried; try again"
    )


def activate(core: Core, name: str, min_coverage: float) -> Op[Version]:
    """Serve `name` to everyone, if it holds enough of the active version's ids."""
    catalog.check_name(name)
    view = yield from refresh(core, time.monotonic() + TIMEOUT_S)
    number = _usable(core, view, name)
    if number != view.active and view.active and min_coverage > 0:
        held, seen = yield from count_held(core, view.active, number)
        if held < min_coverage * seen:
            raise CoverageError(
                f"version {name!r} holds {held} of {seen} ids of the active version "
                f"{view.name(view.active)!r} that were compared ({held / seen:.2%}); "
                f"{min_coverage:.2%} are asked for. Write the rest, or force it."
            )

    def decide(view: View) -> tuple[View, dict[str, str]] | None:
        number = _usable(core, view, name)
        if number == view.active:
            return None
        return replace(view, active=number, previous=view.active), {}

    yield from _change(core, decide)
    return (yield from _find(core, name))


def _usable(core: Core, view: View, name: str) -> int:
    if name not in view.numbers or name in view.retiring:
        raise unknown(core, name)
    return view.numbers[name]


def rollback(core: Core) -> Op[Version]:
    """Swap the active version and the one before."""
    chosen = ""

    def decide(view: View) -> tuple[View, dict[str, str]] | None:
        nonlocal chosen
        if not view.previous or view.previous not in view.kept():
            raise UnknownVersionError("no version was active before this one, or it is retired")
        chosen = view.name(view.previous)
        return replace(view, active=view.previous, previous=view.active), {}

    yield from _change(core, decide)
    return (yield from _find(core, chosen))


def retire(core: Core, name: str) -> Op[int]:
    """Remove a version: nobody writes to it any more, its records go bit by bit, then its name."""
    number = 0

    def begin(view: View) -> tuple[View, dict[str, str]] | None:
        nonlocal number
        if name not in view.numbers:
            raise unknown(core, name)
        number = view.numbers[name]
        if number == view.active:
            raise VersionInUseError(
                f"version {name!r} is being served; activate another one before retiring it"
            )
        previous = 0 if view.previous == number else view.previous
        entry = catalog.entry(number, RETIRING, view.bits.get(number))
        return replace(view, previous=previous), {name: entry}

    yield from _change(core, begin)
    removed = 0
    batches = RecordBatches(core, number, _REMOVE)
    while True:
        batch = yield from batches.next()
        if batch is None:
            break
        node, keys = batch
        if keys:
            removed += yield from batches.unlink(node, keys)
        yield Pause(_REMOVE_PAUSE_S)
    yield from run_jobs(
        core,
        [Job(tag, command("HDEL", core.keys.counts(tag), number)) for tag in range(TAGS)],
        time.monotonic() + TIMEOUT_S,
    )
    yield from _forget_loads(core, name)
    yield from _change(core, lambda view: (view, {name: ""}) if name in view.numbers else None)
    return removed


def _forget_loads(core: Core, name: str) -> Op[None]:
    """A load into a version of that name begins anew: what it had written is gone."""
    deadline = time.monotonic() + TIMEOUT_S
    (found,) = yield from run_jobs(core, [Job(0, command("HKEYS", core.keys.loads))], deadline)
    fields = (
        [field for field in found if isinstance(field, bytes)] if isinstance(found, list) else []
    )
    stale = [field for field in fields if field.split(b" ")[1:2] == [name.encode()]]
    if stale:
        yield from run_jobs(core, [Job(0, command("HDEL", core.keys.loads, *stale))], deadline)
