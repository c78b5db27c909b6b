"""What one reading of records brings back, whether from one server or from many."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .record import Decoded


@dataclass(slots=True)
class Rows:
    """Records as read, not verified yet; row i is about the i-th id."""

    rows: np.ndarray  # record.RECORD (n,)
    present: NDArray[np.bool_] | None  # (n,) False where there is no value; None: all have one
    unavailable: NDArray[np.bool_] | None  # (n,) True where nobody answered; None: all did
    pointer: bytes | None  # the version pointer; b"" if there is none, None if nobody answered
    decoded: Decoded | None = None  # the rows, where reading and verifying were one
