"""The bytes of a record: the one thing that lookups read, and a contract for other languages.

In: ids, codes, flags, a version number, sequences. Out: 24-byte records, and back again with
format, version and checksum verified. docs/wire_format.md is this file in prose.

    bytes  0-11  codes     6 x uint16
    bytes 12-13  flags     uint16
    bytes 14-15  version   uint16, a number that the registry maps to a name
    bytes 16-23  control   uint64: bits 0-2 format (1), bit 3 absent, bit 4 human block,
                           bit 5 verdict block, bits 6-47 sequence, bits 48-63 checksum
All little-endian.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

SIZE = 24
CODES = 6
NO_CODE = 65535
FORMAT = 1
SEQUENCE_MAX = (1 << 42) - 1

ABSENT = 1 << 3
MARK_HUMAN = 1 << 4
MARK_VERDICT = 1 << 5
MARKS = MARK_HUMAN | MARK_VERDICT

ID_MULTIPLIER = 0x9E3779B97F4A7C15


def word(value: int) -> U64:
    """A constant for arithmetic with arrays: numpy takes an array () in half a scalar's time."""
    return np.array(value, np.uint64)


_MULTIPLIER = word(ID_MULTIPLIER)
_6, _16, _21, _24, _25, _32, _48 = map(word, (6, 16, 21, 24, 25, 32, 48))
_CONTROL, _SUM, _FORMAT = word((1 << 48) - 1), word(0xFFFF), word(FORMAT)
_BITS = word((1 << 48) - 8)  # of the control word, format and checksum aside
_MARKS, _SPECIAL = word(MARKS), word(ABSENT | MARKS)

RECORD = np.dtype(
    {
        "names": ["codes", "flags", "version", "control", "w0", "w1"],
        "formats": [("<u2", (CODES,)), "<u2", "<u2", "<u8", "<u8", "<u8"],
        "offsets": [0, 12, 14, 16, 0, 8],
        "itemsize": SIZE,
    }
)


class Status(IntEnum):
    """What a row of an answer is. MISS is 0, so that fresh arrays mean "nothing known"."""

    MISS = 0
    HIT = 1
    STALE = 2
    UNAVAILABLE = 3
    BLOCKED = 4


class Flag(IntFlag):
    """Bits of `flags`: the state of an ad's checks, then its policy categories (bits 4-15)."""

    PENDING = 1 << 0
    REVIEW = 1 << 1
    DUPLICATE = 1 << 2
    HUMAN = 1 << 3
    EXAGGERATED_CLAIMS = 1 << 4
    GAMBLING = 1 << 5
    ALCOHOL = 1 << 6
    TOBACCO = 1 << 7
    WEAPONS = 1 << 8
    FINANCIAL_PROMISES = 1 << 9
    HEALTH_CLAIMS = 1 << 10
    LOW_QUALITY = 1 << 11
    MISLEADING_BUTTON = 1 << 12
    CLUTTER = 1 << 13


CATEGORIES: dict[str, Flag] = {
    str(flag.name).lower(): flag for flag in Flag if flag >= Flag.EXAGGERATED_CLAIMS
}


@dataclass(slots=True)
class Decoded:
    """Verified rows. `valid` (n,) bool is False where the bytes are foreign or corrupt."""

    codes: NDArray[np.uint16]  # (n, 6), NO_CODE where the row is not a HIT
    flags: NDArray[np.uint16]  # (n,), 0 where the row is not a HIT
    status: NDArray[np.uint8]  # (n,) HIT, MISS or BLOCKED
    valid: NDArray[np.bool_]  # (n,)


def hash_ids(ids: NDArray[np.int64]) -> U64:
    """Fibonacci hash of ids (n,) -> uint64 (n,): spreads tags and cache sets, seeds checksums."""
    return ids.view(np.uint64) * _MULTIPLIER


def _mix(x: U64, scratch: U64) -> None:
    """A xorshift (Marsaglia, 2003) in place: linear over GF(2).

    With these shifts every error of one or two bits in a record changes its checksum.
    """
    np.left_shift(x, _21, out=scratch)
    x ^= scratch
    np.right_shift(x, _24, out=scratch)
    x ^= scratch
    np.left_shift(x, _25, out=scratch)
    x ^= scratch


def checksum(hashed: U64, w0: U64, w1: U64, control: U64) -> U64:
    """16-bit checksum of records (n,) as uint64 words, bound to their ids.

    For one id it is linear over GF(2) in the record's bits: a server-side script changes a mark
    or a flag and repairs the checksum by XOR with `SYNDROMES`, with no 64-bit arithmetic.
    """
    x = hashed ^ w0
    scratch = np.empty_like(x)
    _mix(x, scratch)
    x ^= w1
    _mix(x, scratch)
    np.bitwise_and(control, _CONTROL, out=scratch)
    x ^= scratch
    _mix(x, scratch)
    np.right_shift(x, _32, out=scratch)
    x ^= scratch
    np.right_shift(x, _16, out=scratch)
    x ^= scratch
    x &= _SUM
    return x


def _syndromes() -> bytes:
    """What flipping bit b of a record does to its checksum: uint16 LE for each of 176 bits."""
    bits = np.zeros((177, SIZE), np.uint8)
    rows = np.arange(1, 177)
    bits[rows, (rows - 1) // 8] = 1 << ((rows - 1) % 8)
    words = bits.view("<u8")
    columns = [np.ascontiguousarray(words[:, i]) for i in range(3)]
    sums = checksum(np.zeros(177, np.uint64), columns[0], columns[1], columns[2])
    flips: bytes = (sums[1:] ^ sums[0]).astype("<u2").tobytes()
    return flips


SYNDROMES = _syndromes()


def encode(
    ids: NDArray[np.int64],
    codes: NDArray[np.uint16],
    flags: NDArray[np.uint16],
    version: int,
    control: U64,
) -> np.ndarray:
    """Seal records: ids (n,), codes (n, 6), flags (n,), control bits 3-47 (n,) -> RECORD (n,)."""
    rows = np.empty(len(ids), RECORD)
    rows["codes"] = codes
    rows["flags"] = flags
    rows["version"] = version
    sealed = (control & _BITS) | _FORMAT
    rows["control"] = sealed | (
        checksum(hash_ids(ids), rows["w0"].copy(), rows["w1"].copy(), sealed) << _48
    )
    return rows


def sequence_bits(sequence: "NDArray[np.int64] | int", n: int) -> U64:
    """Sequences 0..SEQUENCE_MAX, one or (n,), at their place in the control word: uint64 (n,)."""
    return np.broadcast_to(np.asarray(sequence, np.uint64), (n,)) << _6


def decode(
    hashed: U64, rows: np.ndarray, present: "NDArray[np.bool_] | None", version: int
) -> Decoded:
    """Verify and decode RECORD rows (n,) of ids whose hashes are given.

    `present` (n,) is False where the store has no value at all (None: all are present). Rows of
    another version, format or id, or with a wrong checksum, come back as MISS and not `valid`.
    """
    control = np.ascontiguousarray(rows["control"])
    w0, w1 = np.ascontiguousarray(rows["w0"]), np.ascontiguousarray(rows["w1"])
    # One comparison for checksum and format: 16 + 3 bits in a word.
    expected = checksum(hashed, w0, w1, control)
    expected <<= _48
    expected |= control & _BITS
    expected |= _FORMAT
    valid = expected == control
    valid &= rows["version"] == version
    special = (control & _SPECIAL).astype(np.bool_)
    known = valid if present is None else valid & present
    hit = known & ~special
    codes = rows["codes"].copy()
    flags = rows["flags"].copy()
    status = hit.astype(np.uint8)  # MISS 0, HIT 1
    if np.count_nonzero(hit) < len(hit):
        status[known & (control & _MARKS).astype(np.bool_)] = Status.BLOCKED
        hidden = ~hit
        codes[hidden] = NO_CODE
        flags[hidden] = 0
    if present is not None:
        valid |= ~present
    return Decoded(codes, flags, status, valid)
