"""The versions as all clients see them: one pointer, one registry, changed together.

In: the pointer's 24 bytes and the registry's hash. Out: a `View`. The pointer is a sealed record
of id 0 whose codes are (active number, previous number, last number given, revision low 16 bits,
revision high 16 bits, 0); it is read with every lookup, in the same command as the records.
Every change of the registry raises the revision, so an unchanged pointer means unchanged versions.
"""

import re
from dataclasses import dataclass, field, replace

import numpy as np

from . import record
from .errors import ConflictError, InputError, ServerError
from .keys import Keys
from .layout import Bits
from .ops import Node, Op, ask, checked
from .record import RECORD, SIZE
from .redirect import each
from .scripts import COMMIT
from .wire import Reply, command

FIRST = "1"  # the version that an empty store begins with
READY, RETIRING = "kept", "retiring"
_REMEDY = (
    "Clients that are connected go on; to mend it: python -m feature_store doctor, then doctor "
    "--repair"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class View:
    """What a client knows of the versions. Number 0 stands for none."""

    raw: bytes = b""
    active: int = 0
    previous: int = 0
    last: int = 0
    revision: int = 0
    numbers: dict[str, int] = field(default_factory=dict)
    retiring: frozenset[str] = frozenset()
    bits: dict[int, int] = field(default_factory=dict)  # of versions with the compact layout

    def name(self, number: int) -> str:
        """Name of a version number; of 0, the name that an empty store begins with."""
        for name, known in self.numbers.items():
            if known == number:
                return name
        return FIRST if number == 0 else f"#{number}"

    def served(self, name: str) -> int:
        """Number of a version that can be read; 0 if there is none, or it is being retired."""
        return 0 if name in self.retiring else self.numbers.get(name, 0)

    def all_served(self) -> list[int]:
        """Numbers of all versions that can be read."""
        return [number for name, number in self.numbers.items() if name not in self.retiring]

    def kept(self) -> list[int]:
        """Numbers of all versions whose records must follow blocks and deletes."""
        return sorted(self.numbers.values())


def entry(number: int, state: str, bits: Bits) -> str:
    """A version's value in the registry."""
    return f"{number} {state}" if bits is None else f"{number} {state} compact {bits}"


def _open_entry(value: bytes) -> tuple[int, str, Bits]:
    words = value.decode("ascii", "replace").split(" ")
    if len(words) == 2 and words[0].isdigit():
        return int(words[0]), words[1], None
    if len(words) == 4 and words[2] == "compact" and words[0].isdigit() and words[3].isdigit():
        return int(words[0]), words[1], int(words[3])
    raise ServerError(
        f"the registry of versions holds {value[:80]!r}, which this release does not know; a "
        "newer one wrote it, or another program uses this namespace"
    )


def check_name(name: str) -> str:
    """A version's name, if it can be one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            "a version's name is 1-64 characters of A-Z a-z 0-9 _ . - and begins with a letter "
            f"or digit; found {name!r}"
        )
    return name


def seal_pointer(active: int, previous: int, last: int, revision: int) -> bytes:
    """The pointer's bytes."""
    codes = np.array(
        [[active, previous, last, revision & 0xFFFF, (revision >> 16) & 0xFFFF, 0]], np.uint16
    )
    zero = np.zeros(1, np.int64)
    flags = np.zeros(1, np.uint16)
    return record.encode(zero, codes, flags, active, np.zeros(1, np.uint64)).tobytes()


def open_pointer(raw: bytes) -> tuple[int, int, int, int]:
    """(active, previous, last, revision). Raises ServerError for bytes that are no pointer."""
    if len(raw) == SIZE:
        rows = np.frombuffer(raw, RECORD)
        active = int(rows["version"][0])
        decoded = record.decode(np.zeros(1, np.uint64), rows, None, active)
        if decoded.valid[0] and decoded.status[0] == record.Status.HIT:
            codes = [int(code) for code in rows["codes"][0]]
            return codes[0], codes[1], codes[2], codes[3] | codes[4] << 16
    raise ServerError(
        f"the version pointer is not one that this store wrote ({raw[:40]!r}): it is damaged, "
        f"another program uses this namespace, or a newer release wrote it. {_REMEDY}"
    )


def refresh(keys: Keys, node: Node, deadline: float) -> Op[View]:
    """Read pointer and registry as they stood at one moment."""
    pointer = command("GET", keys.pointer)
    asked = [(node, pointer), (node, command("HGETALL", keys.registry)), (node, pointer)]
    while True:
        # In a cluster their slot may be moving; no change is made while they are apart.
        raw, pairs, again = checked((yield from each(asked, deadline)), node)
        if raw != again or not isinstance(pairs, list):
            continue
        known = open_registry(pairs)
        if not isinstance(raw, bytes):
            if known.numbers:
                raise ServerError(
                    f"the version pointer is gone, but the registry names {len(known.numbers)} "
                    f"versions. {_REMEDY}"
                )
            return View()
        active, previous, last, revision = open_pointer(raw)
        return replace(
            known, raw=raw, active=active, previous=previous, last=last, revision=revision
        )


def open_registry(pairs: Reply) -> View:
    """The versions of a registry's fields and values. Raises ServerError for others' values."""
    fields = pairs if isinstance(pairs, list) else []
    numbers: dict[str, int] = {}
    buckets: dict[int, int] = {}
    retiring = set()
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if isinstance(name, bytes) and isinstance(value, bytes):
            number, state, bits = _open_entry(value)
            numbers[name.decode()] = number
            if bits is not None:
                buckets[number] = bits
            if state == RETIRING:
                retiring.add(name.decode())
    return View(numbers=numbers, retiring=frozenset(retiring), bits=buckets)


def commit(
    keys: Keys, node: Node, view: View, change: View, entries: dict[str, str], deadline: float
) -> Op[bool]:
    """Replace `view` by `change` if nobody was faster; entries: name -> registry value or ""."""
    if change.last > 65535:
        raise ConflictError("all 65535 version numbers of this namespace have been given out")
    raw = seal_pointer(change.active, change.previous, change.last, view.revision + 1)
    pairs = [item for pair in entries.items() for item in pair]
    payload = command(
        "EVAL", COMMIT.text, 2, keys.pointer, keys.registry, b"", view.raw, raw, *pairs
    )
    (reply,) = checked((yield from ask(node, payload, 1, deadline)), node)
    return reply == 1
