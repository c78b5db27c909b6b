"""Mends what makes a store unreadable: a version pointer that is gone or damaged.

In: an address, a namespace. Out: what was done, in sentences. The registry still names the versions
and their numbers, so the pointer is made anew from it; which version is active only a human knows
when several are kept. Versions that are being retired are then removed to their end.
"""

import time

from . import catalog, retire, topology
from .address import parse
from .catalog import View
from .core import TIMEOUT_S, Core, Job, run_jobs
from .errors import ConflictError, InputError, ServerError
from .keys import TAGS, Keys
from .links import Links
from .ops import Op
from .retire import Progress
from .store import FeatureStore
from .versions import versions
from .wire import command

_SPARE = 64  # numbers left out: a version that was retired may have had the highest


def open_damaged(url: str, namespace: str = "ads") -> FeatureStore:
    """Open a store whose versions may not be readable, to look at it and to repair it."""
    address = parse(url)
    keys = Keys(namespace)
    links = Links(address)
    found = links.run(topology.discover(address, None, time.monotonic() + TIMEOUT_S))
    return FeatureStore(Core(address, keys, found), links)


def repair(
    store: FeatureStore, active: str | None = None, progress: Progress | None = None
) -> list[str]:
    """Make the store readable; sentences of what was done.

    `active`: the version to serve, needed where the pointer is lost and several are kept.
    Raises InputError where it is needed or unknown.
    """
    return store._run(_repair(store._core, active, progress))


def _repair(core: Core, active: str | None, progress: Progress | None) -> Op[list[str]]:
    done: list[str] = []
    try:
        yield from versions(core)
    except ServerError:
        done.append((yield from _rebuild(core, active)))
    for version in (yield from versions(core)):
        if version.state == "retiring":
            yield from retire.remove(core, version, lambda: False, progress)
            done.append(f"removed version {version.name}, which was being retired")
    return done


def _rebuild(core: Core, active: str | None) -> Op[str]:
    """Make the pointer anew from the registry."""
    deadline = time.monotonic() + TIMEOUT_S
    jobs = [
        Job(0, command("GET", core.keys.pointer)),
        Job(0, command("HGETALL", core.keys.registry)),
    ]
    try:
        raw, pairs = yield from run_jobs(core, jobs, deadline)
    except ServerError as error:  # WRONGTYPE: not even a string
        raise ServerError(
            f"{error} Another program keeps something else under {core.keys.pointer!r}: use a "
            "namespace of your own, or remove that key and repair again."
        ) from error
    known = catalog.open_registry(pairs)
    served = {name: number for name, number in known.numbers.items() if name not in known.retiring}
    name = active if active is not None else next(iter(served)) if len(served) == 1 else None
    if name not in served:
        raise InputError(
            f"which version is to be served? Kept: {', '.join(sorted(served)) or 'none'}. Name it: "
            "python -m feature_store doctor --repair --active NAME"
            if served
            else "no version is left in the registry: remove the pointer's key "
            f"{core.keys.pointer.decode()!r} and load the catalogue again"
        )
    counting = [Job(tag, command("HKEYS", core.keys.counts(tag))) for tag in range(TAGS)]
    numbers = set(known.numbers.values())
    for answer in (yield from run_jobs(core, counting, deadline)):
        fields = answer if isinstance(answer, list) else []
        numbers |= {int(field) for field in fields if isinstance(field, bytes) and field.isdigit()}
    # A revision that no client has seen, so that all read the versions anew.
    was = View(raw if isinstance(raw, bytes) else b"", revision=int(time.time()) & 0xFFFFFFFE)
    change = View(active=served[name], last=min(max(numbers) + _SPARE, 65535))
    if not (yield from catalog.commit(core.keys, core.first, was, change, {}, deadline)):
        raise ConflictError("someone else changed the pointer meanwhile; look again")
    return f"made the version pointer anew: {name} is served, there is no version to roll back to"
