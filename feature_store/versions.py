"""The life of versions: list, activate, roll back. Retiring them is in retire.py.

In: names. Out: operations. Activation replaces one pointer that every lookup reads along with its
records; nothing ever expires by time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from . import catalog
from .catalog import View
from .core import TIMEOUT_S, Core, Job, patiently, refresh, run_jobs
from .errors import ConflictError, CoverageError, UnknownVersionError
from .keys import TAGS
from .layout import Name, name_of
from .lookup import unknown
from .ops import Op
from .scan import count_held
from .wire import command

State = Literal["active", "previous", "kept", "retiring"]
_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class Version:
    """One version of all ads' features. `records` counts ads with codes."""

    name: str
    number: int
    state: State
    records: int
    layout: Name = "default"


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
        Version(
            name,
            number,
            _state(view, name),
            counts.get(number, 0),
            name_of(view.bits.get(number)),
        )
        for name, number in sorted(view.numbers.items(), key=lambda item: item[1])
    ]


def _state(view: View, name: str) -> State:
    number = view.numbers[name]
    if number == view.active:
        return "active"
    if name in view.retiring:
        return "retiring"
    return "previous" if number == view.previous else "kept"


def find(core: Core, name: str) -> Op[Version]:
    for version in (yield from versions(core)):
        if version.name == name:
            return version
    raise unknown(core, name)


def _commit(core: Core, view: View, changed: View, entries: dict[str, str]) -> Op[object]:
    deadline = time.monotonic() + TIMEOUT_S
    return (yield from catalog.commit(core.keys, core.first, view, changed, entries, deadline))


def change(core: Core, decide: Callable[[View], tuple[View, dict[str, str]] | None]) -> Op[None]:
    """Commit what `decide` makes of the versions; None: nothing is left to do."""
    deadline = time.monotonic() + TIMEOUT_S
    for _ in range(_ATTEMPTS):
        view = yield from refresh(core, deadline)
        decision = decide(view)
        if decision is None:
            return
        changed, entries = decision
        attempt = partial(_commit, core, view, changed, entries)
        if (yield from patiently(core, attempt, deadline)):
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

    yield from change(core, decide)
    return (yield from find(core, name))


def _usable(core: Core, view: View, name: str) -> int:
    if name not in view.numbers or name in view.retiring:
        raise unknown(core, name)
    return view.numbers[name]


def rollback(core: Core) -> Op[Version]:
    """Serve the version that was active before; the two have changed places then."""
    chosen = 0  # once: two who roll back at the same time must not undo each other

    def decide(view: View) -> tuple[View, dict[str, str]] | None:
        nonlocal chosen
        if chosen and view.active == chosen:
            return None
        chosen = chosen or view.previous
        if not chosen or chosen not in view.all_served():
            raise UnknownVersionError(
                "no version was active before this one, or it has been retired: nothing to roll "
                "back to. `store.versions()` lists what can be activated."
            )
        return replace(view, active=chosen, previous=view.active), {}

    yield from change(core, decide)
    return (yield from find(core, core.view.name(chosen)))
