"""The compact layout: a version's records in small hashes, the buckets, of one hash tag each.

In: ids, a version number, its bucket bits. Out: names of buckets, fields, commands. The servers
keep a hash of up to 512 short fields as one packed string (a listpack), so a record costs 24
bytes, its field and two or three bytes; a key of its own costs 60 bytes more. The field is the id,
little-endian, without its trailing zero bytes: ids counted from 1 take three or four bytes, random
53-bit ones seven. The bucket is the bits of the id's hash below those of its tag: so the buckets of
a tag are ranges of hashes, in order, and ids counted from 1 fill them evenly.
"""

import numpy as np
from numpy.typing import NDArray

from .keys import Keys, tag_of, tags
from .record import U64, hash_ids

_ID_BYTES = 8
SUFFIX = 3  # bytes of a bucket's number, which a bucket's key ends with


def bucket_of(hashed: U64, bits: int) -> NDArray[np.uint32]:
    """Bucket (n,) within its tag of ids whose hashes (n,) are given."""
    # The shift by 58 less bits leaves tag and bucket; the tag is cut off.
    bucket = (hashed >> np.uint64(58 - bits)) & np.uint64((1 << bits) - 1)
    return bucket.astype(np.uint32)


def field(ad_id: int) -> bytes:
    """An ad's field in its bucket."""
    return ad_id.to_bytes((ad_id.bit_length() + 7) // 8, "little")


def id_of(name: bytes) -> int:
    """The ad that a field is of."""
    return int.from_bytes(name, "little")


def prefix(keys: Keys, version: int) -> bytes:
    """What all buckets of a version begin with."""
    return f"{keys.namespace}:b{version:04x}".encode()


def bucket(keys: Keys, ad_id: int, version: int, bits: int) -> bytes:
    """Name of an ad's bucket: `<ns>:b<version, 4 hex><bits, 2 hex>{<tag>}<bucket, 3 bytes>`."""
    hashed = hash_ids(np.array([ad_id], np.int64))
    tag = tags()[int(tag_of(hashed)[0])]
    number = int(bucket_of(hashed, bits)[0])
    return prefix(keys, version) + b"%02x{%b}" % (bits, tag.encode()) + number.to_bytes(3, "little")


def is_bucket(key: bytes) -> bool:
    """Whether a key that names a record, or an ad's bucket, is the latter."""
    return key[-8:-7] == b"{" and key[-9:-8] != b"}" and key[-4:-3] == b"}"


def hash_range(key: bytes) -> tuple[int, int]:
    """(lowest, highest) hash of the ids that a bucket holds, from its name."""
    bits = int(key[-10:-8], 16)
    shift = 58 - bits
    tag = tags().index(key[-7:-4].decode())
    first = ((tag << bits) + int.from_bytes(key[-SUFFIX:], "little")) << shift
    return first, first + (1 << shift) - 1


def widths(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Bytes (n,) of each id's field: 1..8."""
    width = np.ones(len(ids), np.uint8)
    for size in range(1, _ID_BYTES):
        width += ids >= 1 << 8 * size
    return width


class Commands:
    """One HGET per id, as RESP. `payload(part)` is that of some rows."""

    def __init__(self, keys: Keys, ids: NDArray[np.int64], version: int, bits: int) -> None:
        head = _HGET + element(keys, version, bits, b"\0" * SUFFIX)
        row = np.frombuffer(head + b"$0\r\n" + b"\0" * (_ID_BYTES + 2), np.uint8)
        hashed = hash_ids(ids)
        n, field_at = len(ids), len(head) + 4
        raw = np.empty((n, len(row)), np.uint8)
        raw[:] = row
        fill_key(raw, len(head), hashed, bits)
        width = widths(ids)
        raw[:, field_at - 3] += width
        raw[:, field_at : field_at + _ID_BYTES] = ids.view(np.uint8).reshape(n, _ID_BYTES)
        end = field_at + width
        rows = np.arange(n)
        raw[rows, end] = 13
        raw[rows, end + 1] = 10
        self._raw = raw
        self._kept = np.arange(len(row)) < (end + 2)[:, None]

    def payload(self, part: slice) -> bytes:
        """The commands of some rows."""
        packed: bytes = self._raw[part][self._kept[part]].tobytes()
        return packed


_HGET = b"*3\r\n$4\r\nHGET\r\n"
_TAGS = np.array([list(tag.encode()) for tag in tags()], np.uint8)


def element(keys: Keys, version: int, bits: int, suffix: bytes) -> bytes:
    """A bucket's key as an element of a command; its tag is to be filled in."""
    name = prefix(keys, version) + b"%02x{___}" % bits + suffix
    return b"$%d\r\n%b\r\n" % (len(name), name)


def command_prefix(keys: Keys, version: int, bits: int) -> bytes:
    """What HGETs of a version begin with, up to their keys' tags."""
    return _HGET + element(keys, version, bits, b"\0" * SUFFIX)[: -SUFFIX - 6]


def fill_key(raw: NDArray[np.uint8], end: int, hashed: U64, bits: int) -> None:
    """Put tag and bucket into rows (n, width) whose key's element ends at column `end`."""
    raw[:, end - 9 : end - 6] = _TAGS[tag_of(hashed)]
    number = bucket_of(hashed, bits).astype("<u4").view(np.uint8).reshape(-1, 4)
    raw[:, end - 5 : end - 2] = number[:, :SUFFIX]
