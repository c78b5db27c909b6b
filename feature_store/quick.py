"""The plain lookup in one compiled call: what most lookups are, without the generality of the rest.

In: a store's state and its connections, ids. Out: `Found`. Plain is: one server without TLS, the
default layout, the active version, no near cache, an array of int64 ids, a connection that is open.
Such a lookup is built, sent, received, decoded and counted by `ask` in _talk.c. Where anything is
out of the ordinary (another pointer, a corrupt row, a value of another size, a fault, no answer in
time) the common way (lookup.py) goes on with the very bytes that came.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np

from . import compiled, methods
from . import lookup as lookups
from .catalog import View
from .compiled import Fast
from .core import Core
from .ids import Ids
from .link import Link
from .links import Begun, Links
from .lookup import Found
from .reading import U8, U16
from .topology import Topology


@dataclass(frozen=True, slots=True)
class _Plan:
    """How lookups are asked for, as long as these are the versions, the server and the loops."""

    view: View
    where: Topology
    fast: Fast | None
    parts: tuple[object, ...] | None  # `PLAN` in _fast.h; None: not in one call


def _plan(core: Core, links: Links) -> _Plan:
    view, where, fast, keys = core.view, core.reading, compiled.fast, core.keys
    number = view.active
    plain = not (where.clustered or where.partial) and view.bits.get(number) is None
    if fast is None or core.near is not None or core.address.tls is not None or not plain:
        return _Plan(view, where, fast, None)
    command = (keys.element_prefix(number), keys.tag_bytes, keys.pointer_element)
    asked = (core.tallies.shared, view.raw, number, core.fetched_ahead)
    answer = (np.ndarray, np.empty, U16, U8, Found, view.name(number))
    limits = (lookups.DEADLINE_S, lookups.DEADLINE_ROW_S, lookups.LONGEST_S)
    parts = (*command, *asked, links, links.idle(where.nodes[0]), *answer, *limits)
    return _Plan(view, where, fast, parts)


class Quick:
    """Lookups of one store with blocking calls. Safe to share between threads."""

    __slots__ = ("_core", "_links", "_plan")

    def __init__(self, core: Core, links: Links) -> None:
        self._core = core
        self._links = links
        self._plan = _plan(core, links)

    def lookup(self, ad_ids: Ids, version: str | None, deadline: float | None) -> Found:
        """See FeatureStore.lookup."""
        core, plan, fast = self._core, self._plan, compiled.fast
        if plan.view is not core.view or plan.where is not core.reading or plan.fast is not fast:
            plan = self._plan = _plan(core, self._links)
        begun = None
        if fast is not None and plan.parts is not None and version is None:
            found = fast.ask(plan.parts, ad_ids, deadline)
            if type(found) is Found:
                return found
            if found is not None:
                begun = Begun(*cast(tuple[Link, bytes, float], found))
        began = None if begun is None else begun.at
        return self._links.run(methods.lookup(core, ad_ids, version, deadline, began), begun)
