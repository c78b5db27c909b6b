"""Which layout a version's records have, chosen when the version begins.

In: what a store was opened with, and the versions as they are. Out: bucket bits. None is the
default layout, a key per record, which is fast; a number is the compact one (buckets.py), for big
catalogues: 2^bits small hashes per hash tag. It is written in the registry, so that readers need
no setting, and a version keeps its layout for life.
"""

import math
from dataclasses import dataclass
from typing import Literal

from .errors import InputError, LayoutError
from .keys import TAGS

Name = Literal["default", "compact"]
Bits = int | None

MIN_BITS, MAX_BITS = 4, 24
# Expected records per bucket, at most: half as many cost 3 bytes a record more, twice as many
# cost the server a tenth more time.
PER_BUCKET = 32
FIELDS = 512  # hash-max-listpack-entries by default: a larger hash takes three times the memory


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a store's user asks of the versions it begins; name None: as the active version."""

    name: Name | None = None
    bits: Bits = None

    def begin(self, active: Bits) -> Bits:
        """Layout of a version that begins beside an active one."""
        return active if self.name is None else self.bits

    def check(self, version: str, found: Bits) -> None:
        """Raises LayoutError where a version that is to be written has another layout."""
        if self.name is not None and (found is None) != (self.name == "default"):
            raise LayoutError(
                f"this store was opened with layout={self.name!r}, but version {version!r} was "
                f"begun with layout={name_of(found)!r} and keeps it: open without a layout to "
                "write to it as it is, or write under a new version's name"
            )


def name_of(bits: Bits) -> Name:
    """The layout's name."""
    return "default" if bits is None else "compact"


def bits_for(ads: float) -> int:
    """Bucket bits for a catalogue of so many ads: 16-32 records a bucket once it is full."""
    return min(max(math.ceil(math.log2(ads / TAGS / PER_BUCKET)), MIN_BITS), MAX_BITS)


def wanted(name: str | None, expected_ads: float | None) -> Wanted:
    """Check a setting. Raises InputError."""
    if name not in (None, "default", "compact"):
        raise InputError(f"layout must be 'default', 'compact' or None; found {name!r}")
    if (name == "compact") != (expected_ads is not None):
        raise InputError(
            "layout='compact' and expected_ads go together: how many ads the catalogue will hold "
            f"decides the number of buckets; found layout={name!r}, expected_ads={expected_ads!r}"
        )
    if expected_ads is None:
        return Wanted("default" if name else None)
    if not isinstance(expected_ads, int | float) or not 1 <= expected_ads <= 1e12:
        raise InputError(f"expected_ads must be 1..1e12; found {expected_ads!r}")
    return Wanted("compact", bits_for(expected_ads))
