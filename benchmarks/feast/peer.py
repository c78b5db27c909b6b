"""Talks to the peer's process: writes ads into it, and reads them with the time that it took.

In: the peer's Python and the port of the server that all readers share. Out: timed reads. The time
is taken inside the peer's process, so the pipe between the two is not in it.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import answering
from .environment import NoPeerError


@dataclass(slots=True)
class FeastPeer:
    """A process that holds a Feast store."""

    process: "subprocess.Popen[str]"
    folder: Path
    words: Path

    def write(self, ids: NDArray[np.int64], values: NDArray[np.int32]) -> float:
        """Store ids (n,) with values (n, 12); the seconds that it took."""
        paths = [str(self.folder / name) for name in ("ids.npy", "values.npy")]
        np.save(paths[0], ids)
        np.save(paths[1], values)
        return float(self.ask({"write": paths})["seconds"])

    def read(self, ids: NDArray[np.int64]) -> tuple[float, float, NDArray[np.int32]]:
        """Seconds and CPU seconds of one read of ids (n,), and what it found (n, 12)."""
        answer = self.ask({"read": ids.tolist()})
        return answer["seconds"], answer["cpu_s"], np.asarray(answer["rows"], np.int32)

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """One command and its answer. Raises NoPeerError when the process has ended."""
        if self.process.stdin is None or self.process.stdout is None:
            raise NoPeerError("the peer was opened without pipes")
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next answer; lines that are none (a library's own words) are passed over."""
        for line in self.process.stdout or ():
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise self._ended()

    def _ended(self) -> NoPeerError:
        said = self.words.read_text(errors="replace").strip().splitlines()
        return NoPeerError(f"the peer Feast ended: {said[-1] if said else 'without a word'}")


@contextmanager
def opened(python: Path, port: int) -> Iterator[FeastPeer]:
    """The peer on the server at `port` of loopback. Raises NoPeerError."""
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        folder, words = Path(name), Path(name) / "stderr.txt"
        environment = {"FEAST_USAGE": "False", "PATH": "/usr/bin:/bin", "HOME": name}
        with words.open("w") as errors:
            process = subprocess.Popen(
                [str(python), answering.__file__, str(port), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        try:
            peer = FeastPeer(process, folder, words)
            peer.answer()
            yield peer
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
