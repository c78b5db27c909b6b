"""The names of all keys, and where each lies: one hash tag per 1/64 of the ids.

In: a namespace. Out: key names, tags, and fixed-width key arrays for whole id arrays. In a
cluster every key of a tag lies in one slot, so that a lookup is one MGET per tag, and a script
may touch an ad's record, marks and counts at once. Tag i is the first string of three characters
of 0-9a-z, in that order, whose slot lies in [256 i, 256 (i + 1)): tags are spread evenly over
any number of shards.
"""

import re
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from redis.crc import key_slot

from .errors import InputError
from .record import hash_ids, word

TAGS = 64
_SLOTS = 16384
_BELOW_TAG = word(58)
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@cache
def tags() -> tuple[str, ...]:
    """The 64 hash tags, by index."""
    found: list[str | None] = [None] * TAGS
    missing = TAGS
    for letters in product("0123456789abcdefghijklmnopqrstuvwxyz", repeat=3):
        text = "".join(letters)
        index = key_slot(text.encode()) * TAGS // _SLOTS
        if found[index] is None:
            found[index] = text
            missing -= 1
            if not missing:
                break
    return tuple(tag for tag in found if tag is not None)


def tag_of(hashed: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Tag index (n,) of ids whose hashes (n,) are given: the top six bits."""
    return (hashed >> _BELOW_TAG).astype(np.intp)


class Keys:
    """Key names of one namespace.

    Record: `<ns>:r<version, 4 hex digits>{<tag>}<id, 8 bytes little-endian>`.
    """

    def __init__(self, namespace: str) -> None:
        if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
            raise InputError(
                f"namespace must be 1-64 characters of A-Z a-z 0-9 _ . -; found {namespace!r}"
            )
        self.namespace = namespace
        first = tags()[0]
        self.pointer = f"{namespace}:v{{{first}}}".encode()
        self.pointer_element = b"$%d\r\n%b\r\n" % (len(self.pointer), self.pointer)
        self.pointer_command = b"*2\r\n$3\r\nGET\r\n" + self.pointer_element
        self.registry = f"{namespace}:versions{{{first}}}".encode()
        self.loads = f"{namespace}:loads{{{first}}}".encode()
        width = len(namespace) + 19
        frame = f"${width}\r\n"
        self._tags = np.array([tag.encode() for tag in tags()], "S3")
        # A key as an element of a RESP command: "$<length>\r\n<key>\r\n".
        self._element = np.dtype(
            {
                "names": ["tag", "id"],
                "formats": ["S3", "<i8"],
                "offsets": [len(frame) + width - 12, len(frame) + width - 8],
                "itemsize": len(frame) + width + 2,
            }
        )
        self._frame = frame
        self.tag_bytes = "".join(tags()).encode()
        self._templates: dict[int, NDArray[np.uint8]] = {}
        self._prefixes: dict[int, bytes] = {}

    def content(self, ad_id: int, kind: str = "c") -> bytes:
        """Name of an ad's content (`kind` names its owner's sort): same tag as its record."""
        return f"{self.namespace}:{kind}{{{self.tag(ad_id)}}}".encode() + ad_id.to_bytes(
            8, "little"
        )

    def tag(self, ad_id: int) -> str:
        """Hash tag of an ad."""
        return tags()[int(tag_of(hash_ids(np.array([ad_id], np.int64)))[0])]

    def record(self, ad_id: int, version: int) -> bytes:
        """Name of an ad's record in a version."""
        prefix = f"{self.namespace}:r{version:04x}{{{self.tag(ad_id)}}}"
        return prefix.encode() + ad_id.to_bytes(8, "little")

    def record_prefix(self, version: int) -> bytes:
        """What all record keys of a version begin with."""
        return f"{self.namespace}:r{version:04x}".encode()

    def marks(self, tag: int) -> bytes:
        """Hash of block marks of a tag: id (8 bytes) -> mark byte and reason."""
        return f"{self.namespace}:marks{{{tags()[tag]}}}".encode()

    def counts(self, tag: int) -> bytes:
        """Hash of record counts of a tag: version number -> count."""
        return f"{self.namespace}:counts{{{tags()[tag]}}}".encode()

    def ended(self, tag: int) -> bytes:
        """Hash of deleted ads' sequences of a tag: id and version (10 bytes) -> 10 bytes."""
        return f"{self.namespace}:ended{{{tags()[tag]}}}".encode()

    def elements(self, ids: NDArray[np.int64], tag: NDArray[np.intp], version: int) -> np.ndarray:
        """Record keys of ids (n,) as RESP command elements, one fixed-width row each."""
        raw = np.empty((len(ids), self._element.itemsize), np.uint8)
        raw[:] = self._template(version)
        rows = raw.view(self._element)[:, 0]
        rows["tag"] = self._tags[tag]
        rows["id"] = ids
        return rows

    def element_prefix(self, version: int) -> bytes:
        """What all record keys of a version begin with, as elements of a command, up to the tag."""
        prefix = self._prefixes.get(version)
        if prefix is None:
            prefix = f"{self._frame}{self.namespace}:r{version:04x}{{".encode()
            self._prefixes[version] = prefix
        return prefix

    def _template(self, version: int) -> NDArray[np.uint8]:
        template = self._templates.get(version)
        if template is None:
            key = f"{self.namespace}:r{version:04x}{{___}}________"
            text = f"{self._frame}{key}\r\n".encode()
            template = np.frombuffer(text, np.uint8)
            self._templates[version] = template
        return template
