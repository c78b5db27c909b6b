"""Reads records from one server: one exchange for all ids and the version pointer.

In: what is asked. Out: rows in their places. The pointer is read last, and a version's number is in
its keys: where the pointer still names the version, it was being served while its rows were read.

Valkey fetches the memory of the first 16 keys of commands that wait before it runs them, and not
that of the others: ids are asked for in MGETs of 16 keys there, sent together.
"""

import re

import numpy as np
from numpy.typing import NDArray

from . import compiled
from .core import Core
from .decoding import Share, call_of, collect
from .ops import Exchange, Op
from .reading import Asked, lose

_VALKEY = re.compile(rb"^valkey_version:(\d+)", re.MULTILINE)
_FIRST = 9  # the major version that fetches ahead in its main thread
_AHEAD = 16  # its default `prefetch-batch-max-size`


def fetched_ahead(info: bytes) -> int:
    """How many keys a server fetches ahead, from its `INFO server`; 0: none."""
    found = _VALKEY.search(info)
    return _AHEAD if found is not None and int(found[1]) >= _FIRST else 0


def groups_of(n: int, keys: int) -> NDArray[np.int64] | None:
    """n ids and the pointer in MGETs of so many keys, as `Share.groups`; None: in one."""
    if not keys or n < keys:
        return None
    groups = np.empty(n // keys + 1, np.int64)
    groups.fill(2 * keys)
    groups[-1] = 2 * (n % keys) + 1
    return groups


def read(core: Core, asked: Asked, deadline: float) -> Op[None]:
    """Read records and the pointer."""
    where = core.reading
    if where.partial:  # the server is silent just now
        core.counters["unavailable"] += 1
        lose(asked, None)
        return
    # Every MGET is a call to Python where nothing is compiled; a HGET has one key anyway.
    together = asked.bits is not None or compiled.fast is None
    share = Share(
        where.nodes[0], groups=None if together else groups_of(len(asked.ids), core.fetched_ahead)
    )
    call = call_of(core.keys, asked, share)
    (outcome,) = yield Exchange([call], deadline)
    refused = collect(asked, share, call, outcome)
    if outcome is not None or refused:
        core.report_failure(share.node, outcome or refused[0].line)
        lose(asked, None)
