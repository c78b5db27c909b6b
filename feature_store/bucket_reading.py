"""How records of the compact layout are asked for: one HGET per id, one pipeline per node.

In: ids (n,). Out: commands, and a reader of their replies. The version's number is in every
bucket's name, so rows of two versions cannot mix; the version pointer is read last, so that where
it still names the version, the version was being served while its rows were read.
"""

import numpy as np
from numpy.typing import NDArray

from .buckets import Commands, bucket, field
from .keys import Keys
from .rows import RowsReader
from .wire import command


class BucketRows(RowsReader):
    """`RowsReader` of replies that no array frames: `counts` single values a group.

    A group with an error line among its values is refused as a whole, and read again.
    """

    def _head(self, buffer: bytearray, end: int, count: int) -> tuple[int, bool] | None:  # noqa: ARG002
        return self._at, False

    def _element_error(self, text: bytes) -> bool:
        if text[:1] != b"-":
            return super()._element_error(text)
        line = text[1:].decode("utf-8", "replace")
        if not line.startswith("WRONGTYPE"):
            self.errors.setdefault(self._group, line)
            return False
        return True


class Hgets:
    """The commands that read records of ids (n,) in a version whose buckets have so many bits."""

    def __init__(self, keys: Keys, ids: NDArray[np.int64], number: int, bits: int) -> None:
        self._keys = keys
        self._version = (number, bits)
        self._commands = Commands(keys, ids, number, bits)

    def payload(self, parts: list[tuple[slice, bool]]) -> bytes:
        """Commands for some rows; True: the pointer is read along."""
        pointer = command("GET", self._keys.pointer)
        return b"".join(
            self._commands.payload(part) + (pointer if first else b"") for part, first in parts
        )

    def reader(self, counts: list[int]) -> BucketRows:
        """Who reads the replies."""
        return BucketRows(counts)

    def one(self, ad_id: int) -> bytes:
        """The command for one ad alone."""
        return command("HGET", bucket(self._keys, ad_id, *self._version), field(ad_id))
