"""The environment that a peer runs in: it is no dependency, and never beside our own.

In: a folder, and what is pinned in it (Feast by default). Out: the Python in it that can import the
peer; made once (some minutes, from the package index), found again later. Without an index there is
no peer, and the caller is told why.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import BenchmarkError

PINNED = ("feast[redis]==0.67.0", "redis==7.4.1", "hiredis==3.5.0")
FOLDER = Path("var/peers")
_INSTALL_S = 900.0


class NoPeerError(BenchmarkError):
    """A peer that cannot be had here; the message says why its row is left out."""


def home(folder: Path, pinned: Sequence[str] = PINNED) -> Path:
    """Where the environment lies: its name says what is in it."""
    return folder / "-".join(spec.replace("[redis]", "").replace("==", "-") for spec in pinned)


def python(folder: Path = FOLDER, pinned: Sequence[str] = PINNED) -> Path:
    """Path of the peer's Python; makes its environment first. Raises NoPeerError."""
    place = home(folder, pinned)
    ready = place / ".ready"
    found = place / "bin" / "python"
    if ready.exists() and found.exists():
        return found.absolute()
    print(f"making the environment of a peer in {place} (minutes, once)", file=sys.stderr)
    began = time.monotonic()
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(place))
        _run(str(found), "-m", "pip", "install", "--disable-pip-version-check", *pinned)
    except NoPeerError:
        shutil.rmtree(place, ignore_errors=True)
        raise
    ready.write_text("\n".join(pinned))
    print(f"made in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return found.absolute()


def _run(*command: str) -> None:
    """Run a step; what it says goes to stderr as it comes, so that nobody waits in the dark."""
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        deadline = time.monotonic() + _INSTALL_S
        for line in process.stdout or ():
            print(f"  {line.rstrip()[:120]}", file=sys.stderr)
            last = line.strip() or last
            if time.monotonic() > deadline:
                process.kill()
                last = f"no end after {_INSTALL_S:.0f} s"
    if process.returncode:
        raise NoPeerError(f"the environment of the peer could not be made: {last[:300]}")
