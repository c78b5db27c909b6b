"""What publishers that died left behind: found by what no manifest names, removed by age.

In: the objects of a repository behind a URL, and an age. Out: what was, or would be, removed. What
any manifest names is never touched; nor is what is younger than the age, since its manifest may be
about to be written. A manifest that cannot be read stops everything: it may name anything.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from export.errors import RepositoryError
from export.progress import counted

# No upload may take longer than what is left of it after `export.object_store.REUSED_S`.
LEAST_S = 3600.0
_AGE = re.compile(r"([0-9]{1,6})([hd])")
_UNITS_S = {"h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that nothing names: where it lies in the repository, and how old it is."""

    name: str
    bytes: int
    age_s: float


def parse_age(text: str) -> float:
    """Seconds of `24h` or `7d`. Raises RepositoryError."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise RepositoryError(f"--older-than {text}: expected hours or days, such as 24h or 7d")
    return int(found[1]) * _UNITS_S[found[2]]


def check_age(older_than_s: float) -> None:
    """Refuse an age at which publishers may still be at work. Raises RepositoryError."""
    if not older_than_s >= LEAST_S:
        raise RepositoryError(
            f"expected an age of an hour or more, found {older_than_s:.0f} s: files are there "
            "before their manifest, and a publisher that is at work would lose them"
        )


def collect(
    listed: list[str],
    named: Callable[[], set[str]],
    look: Callable[[str], tuple[int, float] | None],
    remove: Callable[[str], None] | None,
    older_than_s: float,
) -> list[Garbage]:
    """Remove what nothing names and is old; with `remove` None only tell.

    Args:
        listed: all files, listed before anything else was asked.
        named: reads every manifest, and gives the files they name.
        look: bytes and time of the last write (seconds since 1970) of a file; None: it is gone.

    Raises:
        ManifestError: a manifest cannot be read; nothing was removed.
        RepositoryError: a version that was published meanwhile names what was removed.
    """
    check_age(older_than_s)
    wanted = named()
    found = []
    with counted("looking at files", len(listed)) as advance:
        for name in listed:
            advance(1)
            # Only now: whoever publishes the same content again has written it anew.
            status = None if name in wanted else look(name)
            if status is None or (age := time.time() - status[1]) < older_than_s:
                continue
            if remove is not None:
                remove(name)
            found.append(Garbage(name, status[0], age))
    if remove is not None and (lost := named() & {item.name for item in found}):
        raise RepositoryError(
            f"a version that was published just now names {sorted(lost)}, which were removed: "
            "publish it again, and collect with a longer --older-than"
        )
    return found
