"""Rows of a lookup between JSON, columns and bytes, without a Python step a row where it counts.

In: request bodies or gRPC columns. Out: int64 ids; and from what the store found, JSON bytes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from feature_store import Flag, Found, Status
from serving.errors import InvalidIdsError, InvalidRequestError, shown
from serving.http import parse_json
from serving.schema import MAX_AD_ID, MAX_LOOKUP_IDS

_FIELDS = {"ad_ids", "version", "deadline_ms"}
_DIGITS = len(str(MAX_AD_ID))
_STATUS = np.array([status.name for status in sorted(Status)], dtype=object)
_OUTCOMES = {
    Status.UNAVAILABLE: "UNAVAILABLE: the store did not answer before the deadline",
    Status.STALE: "STALE: read from a near cache that has lost its invalidation channel",
}


@dataclass(frozen=True, slots=True)
class Query:
    """What one lookup asks: ids int64 (n,), a pinned version or None, seconds or None."""

    ids: NDArray[np.int64]
    version: str | None
    deadline_s: float | None


class _FlagNames(dict[int, list[str]]):
    """Names of the bits of a flags value, each value worked out once."""

    def __missing__(self, value: int) -> list[str]:
        names = [str(flag.name) for flag in Flag if value & flag]
        self[value] = names
        return names


_FLAG_NAMES = _FlagNames()


def flag_names(value: int) -> list[str]:
    """The names of the bits that are set in `value`, lowest first."""
    return list(_FLAG_NAMES[value])


def parse_ids(values: Any) -> NDArray[np.int64]:
    """JSON `ad_ids` as int64 (n,), order and duplicates kept.

    Raises InvalidIdsError unless they are 1-100,000 integers 1..2^63-1, as numbers or decimal
    strings.
    """
    if not isinstance(values, list):
        raise InvalidIdsError("ad_ids: expected a list of 1-100,000 ad ids")
    _check_count(len(values))
    kinds = set(map(type, values))
    if not kinds <= {int, str}:
        raise InvalidIdsError(f"ad_ids: {_first_bad(values)}")
    if str in kinds:
        values = [_number(value) for value in values]
    try:
        ids = np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise InvalidIdsError(f"ad_ids: {_first_bad(values)}") from error
    return _checked(ids)


def parse_id(value: Any) -> int:
    """One ad id, a number or a decimal string; InvalidIdsError."""
    return int(parse_ids([value])[0])


def parse_columns(ad_ids: bytes) -> NDArray[np.int64]:
    """gRPC `ad_ids`, little-endian int64, as an array (n,). Raises InvalidIdsError."""
    if len(ad_ids) % 8:
        raise InvalidIdsError(f"ad_ids: expected 8 bytes an id, found {len(ad_ids)} bytes in all")
    _check_count(len(ad_ids) // 8)
    return _checked(np.frombuffer(ad_ids, "<i8").astype(np.int64))


def parse_query(body: bytes) -> Query:
    """The body of `POST /v1/lookup`. Raises InvalidRequestError or InvalidIdsError."""
    value = parse_json(body)
    if unknown := value.keys() - _FIELDS:
        raise InvalidRequestError(f"unknown fields {sorted(unknown)}; known: {sorted(_FIELDS)}")
    version, deadline_ms = value.get("version"), value.get("deadline_ms")
    if not (version is None or (isinstance(version, str) and version)):
        raise InvalidRequestError("version: expected a name or null")
    if deadline_ms is not None and not (type(deadline_ms) in (int, float) and deadline_ms > 0):
        raise InvalidRequestError("deadline_ms: expected a positive number or null")
    ids = parse_ids(value.get("ad_ids"))
    return Query(ids, version, None if deadline_ms is None else deadline_ms / 1000)


def status_counts(status: NDArray[np.uint8]) -> list[tuple[str, int]]:
    """How many rows have each status, by name; only those that occur."""
    counts = np.bincount(status, minlength=len(Status)).tolist()
    return [(kind.name, counts[kind]) for kind in Status if counts[kind]]


def degraded(status: NDArray[np.uint8]) -> list[dict[str, str]] | None:
    """What of the rows is less than was asked; None when nothing is."""
    counts = np.bincount(status, minlength=len(Status)).tolist()
    found = [
        {"what": "rows", "reason": f"{counts[kind]} of {len(status)} rows {text}"}
        for kind, text in _OUTCOMES.items()
        if counts[kind]
    ]
    return found or None


def to_json(found: Found) -> bytes:
    """The body of the answer; rows without codes are null."""
    codes: Any = np.ascontiguousarray(found.codes)
    hidden = np.flatnonzero((found.status != Status.HIT) & (found.status != Status.STALE))
    if len(hidden):
        codes = codes.tolist()
        for row in hidden.tolist():
            codes[row] = None
    answer = {
        "version": found.version,
        "codes": codes,
        "status": _STATUS[found.status].tolist(),
        "flags": list(map(_FLAG_NAMES.__getitem__, found.flags.tolist())),
        "degraded": degraded(found.status),
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_LOOKUP_IDS:
        raise InvalidIdsError(f"ad_ids: expected 1-{MAX_LOOKUP_IDS:,} ids, found {count:,}")


def _checked(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    lowest = int(ids.min())
    if lowest < 1:
        raise InvalidIdsError(f"ad_ids: expected integers 1..2^63-1, found {lowest}")
    return ids


def _is_id(value: Any) -> bool:
    if type(value) is str:
        return value.isascii() and value.isdigit() and len(value) <= _DIGITS and _is_id(int(value))
    return type(value) is int and 1 <= value <= MAX_AD_ID


def _number(value: int | str) -> int:
    if not _is_id(value):
        raise InvalidIdsError(f"ad_ids: {_first_bad([value])}")
    return int(value)


def _first_bad(values: list[Any]) -> str:
    bad = next(value for value in values if not _is_id(value))
    return f"expected integers 1..2^63-1 (numbers or decimal strings), found {shown(bad)}"
