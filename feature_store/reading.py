"""What one reading of records is asked for, and where its rows go.

In: ids, and the arrays of an answer that may be about more ids than these. Out: verified rows in
their places, whichever way they were read. Rows nobody answered about are UNAVAILABLE.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import record
from .layout import Bits
from .record import CODES, NO_CODE, Status


@dataclass(slots=True)
class Answer:
    """Rows (n,) of a lookup."""

    codes: NDArray[np.uint16]  # (n, 6)
    flags: NDArray[np.uint16]  # (n,)
    status: NDArray[np.uint8]  # (n,)


U16, U8 = np.dtype(np.uint16), np.dtype(np.uint8)  # made once: every lookup asks for them


def blank(n: int) -> Answer:
    """An answer about n ids whose rows have yet to be set."""
    return Answer(np.empty((n, CODES), U16), np.empty(n, U16), np.empty(n, U8))


@dataclass(slots=True)
class Asked:
    """Ids (m,) to read in a version. Row i goes to row `index[i]` of the answer; None: to row i."""

    ids: NDArray[np.int64]
    number: int
    bits: Bits  # the version's layout
    answer: Answer
    index: NDArray[np.intp] | None = None
    pointer: bytes | None = None  # the version pointer; b"" if there is none, None if not read
    corrupt: int = 0  # rows whose bytes are not what a store wrote
    lost: bool = False  # whether some rows are UNAVAILABLE


def place(
    asked: Asked,
    part: NDArray[np.intp] | None,
    rows: np.ndarray,
    present: NDArray[np.bool_] | None,
) -> None:
    """Verify records as read, RECORD (r,), and put them where they belong.

    `part` (r,) says about which of the ids they are, None: about all in their order; `present`
    (r,) is False where the store has no value, None: it has all.
    """
    ids = asked.ids if part is None else asked.ids[part]
    decoded = record.decode(record.hash_ids(ids), rows, present, asked.number)
    asked.corrupt += len(ids) - int(np.count_nonzero(decoded.valid))
    answer = asked.answer
    if part is None and asked.index is None:  # the whole answer: nothing to copy
        answer.codes, answer.flags, answer.status = decoded.codes, decoded.flags, decoded.status
        return
    at = _places(asked, part)
    answer.codes[at], answer.flags[at], answer.status[at] = (
        decoded.codes,
        decoded.flags,
        decoded.status,
    )


def lose(asked: Asked, part: NDArray[np.intp] | None) -> None:
    """Nobody answered about these of the ids (r,), or about any of them."""
    at = _places(asked, part)
    answer = asked.answer
    answer.codes[at], answer.flags[at], answer.status[at] = NO_CODE, 0, Status.UNAVAILABLE
    asked.lost |= part is None or len(part) > 0


def _places(asked: Asked, part: NDArray[np.intp] | None) -> NDArray[np.intp] | slice:
    if asked.index is None:
        return slice(None) if part is None else part
    return asked.index if part is None else asked.index[part]
