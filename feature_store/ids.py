"""Checks ids and what comes with them, once, at the border.

In: what callers give. Out: arrays of known dtype and shape, or an InputError that says what was
expected and found.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import compiled
from .errors import InputError
from .record import CODES, NO_CODE, SEQUENCE_MAX

Ids = Sequence[int] | NDArray[np.integer]
ID_MAX = (1 << 63) - 1


def check_ids(ad_ids: "Ids | ArrayLike") -> NDArray[np.int64]:
    """Ids as contiguous int64 (n,). Raises InputError unless all are integers 1..2^63-1."""
    array: np.ndarray
    if isinstance(ad_ids, np.ma.MaskedArray):
        raise InputError("ad_ids must be a plain array; found a masked one: give its compressed()")
    if isinstance(ad_ids, np.ndarray):
        array = ad_ids
    else:
        listed = list(ad_ids) if isinstance(ad_ids, Sequence | range) else None
        if listed is None or isinstance(ad_ids, str | bytes | bytearray):
            raise InputError(
                f"ad_ids must be a list or an array of integers; found {type(ad_ids).__name__}"
            )
        if not listed:
            return np.empty(0, np.int64)
        if any(isinstance(item, bool | np.bool_) for item in listed):
            raise InputError("ad_ids must be integers; found a bool")
        try:
            array = np.array(listed)
        except (OverflowError, ValueError) as error:
            raise InputError(f"ad_ids must be integers 1..2^63-1: {error}") from error
        if array.dtype == object and not all(isinstance(i, int | np.integer) for i in listed):
            raise InputError(f"ad_ids must be integers; found {listed[:3]!r}...")
    if array.ndim != 1:
        raise InputError(f"ad_ids must have one dimension; found shape {array.shape}")
    if array.dtype != np.int64:
        array = _converted(array)
    array = np.ascontiguousarray(array, np.int64)
    fast = compiled.fast
    lowest = fast.lowest(array) if fast is not None else int(array.min()) if len(array) else 1
    if lowest < 1:
        raise InputError(f"ad_ids must be 1..2^63-1; found {lowest}")
    return array


def _converted(array: np.ndarray) -> NDArray[np.int64]:
    # An empty list becomes an array of floats in numpy's hands, or of objects.
    if array.dtype.kind not in ("iuO" if len(array) else "iuOf"):
        masks = ": give ids[mask], not the mask" if array.dtype.kind == "b" else ""
        raise InputError(f"ad_ids must be integers; found dtype {array.dtype}{masks}")
    if not len(array):
        return np.empty(0, np.int64)
    if array.dtype.kind == "O" and not all(
        isinstance(i, int | np.integer) and not isinstance(i, bool) for i in array
    ):
        raise InputError("ad_ids must be integers; found other objects")
    if int(array.max()) > ID_MAX:
        raise InputError(f"ad_ids must be 1..2^63-1; found {int(array.max())}")
    return array.astype(np.int64)


def _array(name: str, given: ArrayLike) -> np.ndarray:
    """What numpy makes of it, if it makes one shape of it."""
    try:
        return np.asarray(given)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name} must be numbers in one shape: {error}") from error


def check_codes(codes: ArrayLike, n: int) -> NDArray[np.uint16]:
    """Codes as uint16 (n, 6), each 0..65534."""
    array = _array("codes", codes)
    if array.shape != (n, CODES) and not (n == 0 and array.size == 0):
        raise InputError(f"codes must have shape ({n}, {CODES}); found {array.shape}")
    if n and array.dtype.kind not in "iu":
        raise InputError(f"codes must be integers; found dtype {array.dtype}")
    if n and (int(array.min()) < 0 or int(array.max()) >= NO_CODE):
        raise InputError(f"codes must be 0..{NO_CODE - 1}; found {array.min()}..{array.max()}")
    return np.ascontiguousarray(array.reshape(n, CODES), np.uint16)


def check_flags(flags: ArrayLike | None, n: int) -> NDArray[np.uint16]:
    """Flags as uint16 (n,); one number holds for all rows, None for 0."""
    array = _array("flags", 0 if flags is None else flags)
    if array.ndim == 0:
        array = np.broadcast_to(array, (n,))
    if array.shape != (n,):
        raise InputError(f"flags must be one number or have shape ({n},); found {array.shape}")
    if n and array.dtype.kind not in "iu":
        raise InputError(f"flags must be integers; found dtype {array.dtype}")
    if n and (int(array.min()) < 0 or int(array.max()) > 0xFFFF):
        raise InputError(f"flags must be 0..65535; found {array.min()}..{array.max()}")
    return array.astype(np.uint16)


def check_sequence(sequence: ArrayLike | None, n: int) -> NDArray[np.int64] | None:
    """Sequences as int64 (n,), each 0..2^42-1; None stays None."""
    if sequence is None:
        return None
    array = _array("sequence", sequence)
    if array.ndim == 0:
        array = np.broadcast_to(array, (n,))
    if array.shape != (n,) or (n and array.dtype.kind not in "iu"):
        raise InputError(
            f"sequence must be an integer or integers of shape ({n},); found "
            f"{array.dtype} {array.shape}"
        )
    if n and (int(array.min()) < 0 or int(array.max()) > SEQUENCE_MAX):
        raise InputError(
            f"sequence must be 0..2^42-1 (milliseconds since 1970 fit, microseconds do not); "
            f"found {array.min()}..{array.max()}"
        )
    return array.astype(np.int64)
