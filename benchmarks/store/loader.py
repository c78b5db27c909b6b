"""A loader in a process of its own, that can be told to write at a rate, to stop, and to remove.

In, on stdin of the process: `measure`, `go RATE`, `stop`, `retire VERSION`. Out, on stdout: records
a second of one unbounded load; 0 once it writes; records a second since `go`; 0 once the first
records are removed, then the seconds that it took. It writes the same catalogue over and over, as a
nightly load over a served version does.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from feature_store import FeatureStore
from feature_store.load import LoadOptions, load
from feature_store.sources import checked
from feature_store.write import Rows

from ..errors import BenchmarkError

SEED = 1


def catalogue(records: int, seed: int) -> Rows:
    """Random ids of 53 bits, codes and no flags."""
    random = np.random.default_rng(seed)
    ids = np.unique(random.integers(1, 2**53, records + records // 50))
    ids = random.permutation(ids)[:records].astype(np.int64)
    return checked(ids, random.integers(0, 65535, (records, 6)).astype(np.uint16))


class Loader:
    """The process, from outside."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @classmethod
    @contextmanager
    def started(cls, url: str, records: int) -> Iterator["Loader"]:
        """A loader of `records` records on the server at `url`."""
        command = [sys.executable, "-m", "benchmarks.store.loader", url, str(records)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield cls(process)
            finally:
                process.kill()

    def measure(self) -> float:
        """Records a second that it reaches alone."""
        self._say("measure")
        return self._hear()

    def go(self, rate: float) -> None:
        """Begin to write at a rate; returns once it writes."""
        self._say(f"go {rate}")
        self._hear()

    def stop(self) -> float:
        """Stop writing; returns, once it has, the records a second since `go`."""
        self._say("stop")
        return self._hear()

    def retire(self, version: str) -> None:
        """Begin to remove a version; returns once records are removed. `removed` is to follow."""
        self._say(f"retire {version}")
        self._hear()

    def removed(self) -> float:
        """Seconds that the removal took, when it has ended."""
        return self._hear()

    def _say(self, line: str) -> None:
        if self._process.stdin is None:
            raise BenchmarkError("the loader was started without a pipe")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> float:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise BenchmarkError("the loader ended; what it said is above")
        return float(line)


class _Stopped(Exception):  # noqa: N818 - not an error
    """The loader was told to stop in the middle of a load."""


def _write(store: FeatureStore, rows: Rows, rate: float, stop: threading.Event) -> None:
    """Load over and over until told to stop; says 0 when the first rows are written."""
    begun, before, said = time.monotonic(), 0, False
    latest = 0

    def progress(done: int, _: int) -> None:
        nonlocal said, latest
        latest = done
        if not said:
            said = True
            print(0.0, flush=True)
        if stop.is_set():
            raise _Stopped

    try:
        while True:
            load(store, rows, LoadOptions(rate=rate, resume=False, progress=progress))
            before += len(rows.ids)
            latest = 0
    except _Stopped:
        print((before + latest) / (time.monotonic() - begun), flush=True)


def _retire(store: FeatureStore, version: str) -> None:
    """Remove a version; says 0 when the first records are gone, and the seconds in the end."""
    begun, said = time.monotonic(), False

    def progress(_: int, __: int) -> None:
        nonlocal said
        if not said:
            said = True
            print(0.0, flush=True)

    store.retire(version, wait=True, progress=progress)
    print(time.monotonic() - begun, flush=True)


def main(url: str, records: int) -> None:
    """Do as told until stdin ends."""
    rows = catalogue(records, SEED)
    stop = threading.Event()
    writer: threading.Thread | None = None
    with FeatureStore.connect(url) as store:
        for line in sys.stdin:
            order, *rest = line.split()
            if order == "measure":
                begun = time.monotonic()
                load(store, rows, LoadOptions(resume=False))
                print(records / (time.monotonic() - begun), flush=True)
            elif order == "go":
                stop.clear()
                arguments = (store, rows, float(rest[0]), stop)
                writer = threading.Thread(target=_write, args=arguments, daemon=True)
                writer.start()
            elif order == "retire":
                _retire(store, rest[0])
            elif writer is not None:
                stop.set()
                writer.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
