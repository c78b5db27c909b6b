"""Reads what HGETs of records of the compact layout answer: one per id, one pipeline per node.

In: the bytes received so far. Out: one array of records. The version's number is in every bucket's
name, so rows of two versions cannot mix; the version pointer is read last, so that where it still
names the version, the version was being served while its rows were read.
"""

from .rows import RowsReader


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
