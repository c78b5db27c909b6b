"""Reads records from one server: one exchange for all ids and the version pointer.

In: what is asked. Out: rows in their places. A single server executes an MGET at one moment, so
pointer and records belong together.
"""

from .core import Core
from .decoding import Share, call_of, collect
from .ops import Exchange, Op
from .reading import Asked, lose


def read(core: Core, asked: Asked, deadline: float) -> Op[None]:
    """Read records and the pointer."""
    where = core.reading
    if where.partial:  # the server is silent just now
        core.counters["unavailable"] += 1
        lose(asked, None)
        return
    share = Share(where.nodes[0])
    call = call_of(core.keys, asked, share)
    (outcome,) = yield Exchange([call], deadline)
    refused = collect(asked, share, call, outcome)
    if outcome is not None or refused:
        core.report_failure(share.node, outcome or refused[0].line)
        lose(asked, None)
