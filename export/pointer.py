"""The pointer of a name: which version is pinned, and the highest number ever given.

In and out: a few bytes of JSON, `pointer.json` in a folder or a record in an object store.
"""

import json
from dataclasses import dataclass

from export.errors import ManifestError
from export.rules import is_version

POINTER_FILE = "pointer.json"


@dataclass(frozen=True, slots=True)
class Pointer:
    """`pinned`: None where `latest` is the newest. `highest`: no number up to it is given again."""

    pinned: str | None = None
    highest: int = 0


def dump(pointer: Pointer) -> bytes:
    """The bytes of a pointer."""
    return json.dumps({"pinned": pointer.pinned, "highest": pointer.highest}).encode()


def parse(data: bytes, where: object) -> Pointer:
    """Read a pointer. Raises ManifestError, which names `where` it lies."""
    try:
        value = json.loads(data)
        pointer = Pointer(value["pinned"], int(value["highest"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{where} is damaged ({error}): remove it to unpin") from error
    if pointer.pinned is not None and not is_version(pointer.pinned):
        raise ManifestError(f"{where} pins {pointer.pinned!r}, which is no version")
    return pointer
