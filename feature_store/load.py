"""Bulk load: whole catalogues into a version, resumable, at a bounded rate.

In: a store and a source. Out: what was written, and progress on the way. How far a load has come
is kept in the store under the source's fingerprint, so the same command goes on where it was cut
off; rows that come twice change nothing.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .errors import InputError
from .ids import check_sequence
from .sources import Source, from_arrays, open_source
from .store import FeatureStore
from .write import Rows

Progress = Callable[[int, int], None]  # rows done, rows in all
# When the rate is bounded, rows for so long at a time, and so many at most: after each of these
# writes the load says how far it is.
_PACE_S, _PACED = 0.25, 1 << 14


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What became of a load."""

    version: str
    rows: int
    written: int
    ignored: int  # rows whose stored sequence is higher
    skipped: int  # rows that an earlier, unfinished run had written
    seconds: float


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load. `rate` rows per second at most, 0 for no bound."""

    version: str | None = None
    sequence: int | None = None
    rate: float = 0.0
    resume: bool = True
    progress: Progress | None = None


class Journal:
    """How far a load has come: a field of the hash `<ns>:loads{<tag 0>}`."""

    def __init__(self, store: FeatureStore, name: str) -> None:
        self._store = store
        self._name = name

    def read(self) -> int:
        """Rows that are done."""
        value = self._store.admin("HGET", self._store.keys.loads, self._name)
        return int(value) if isinstance(value, bytes) and value.isdigit() else 0

    def write(self, done: int) -> None:
        """Note that `done` rows are done."""
        self._store.admin("HSET", self._store.keys.loads, self._name, done)

    def close(self) -> None:
        """The load is finished."""
        self._store.admin("HDEL", self._store.keys.loads, self._name)


def load(
    store: FeatureStore, source: Rows | Path | str, options: LoadOptions | None = None
) -> LoadResult:
    """Write all rows of arrays, a .npz or a .parquet file.

    A `sequence` in the options holds for rows without one of their own. Raises InputError,
    UnavailableError (run it again: it goes on), MissingExtraError.
    """
    options = options or LoadOptions()
    if not options.rate >= 0:
        raise InputError(f"rate must be 0 or more rows per second; found {options.rate!r}")
    opened = from_arrays(source) if isinstance(source, Rows) else open_source(Path(source))
    journal = Journal(store, _name(store, opened, options))
    done = min(journal.read() if options.resume else 0, opened.total)
    return _run(store, opened, options, journal, done)


def _name(store: FeatureStore, source: Source, options: LoadOptions) -> str:
    """A load's name: the same content, version and sequence is the same load."""
    version = options.version
    if version is None:
        active = [known.name for known in store.versions() if known.state == "active"]
        version = active[0] if active else "1"
    return f"{source.fingerprint} {version} {options.sequence}"


def _run(
    store: FeatureStore, source: Source, options: LoadOptions, journal: Journal, done: int
) -> LoadResult:
    began = time.monotonic()
    skipped, written, ignored = done, 0, 0
    version = options.version
    for part in _read_ahead(source.rows(done)):
        rows = part
        if rows.sequence is None and options.sequence is not None:
            rows = replace(rows, sequence=check_sequence(options.sequence, len(rows.ids)))
        for piece in _pieces(rows, options.rate):
            result = store.write(
                piece.ids, piece.codes, piece.flags, version, piece.sequence, options.rate
            )
            version = result.version  # whatever is activated meanwhile, a load has one version
            written += result.written
            ignored += result.ignored
            done += len(piece.ids)
            if options.progress is not None:
                options.progress(done, source.total)
        journal.write(done)
    journal.close()
    seconds = time.monotonic() - began
    return LoadResult(version or "", source.total, written, ignored, skipped, seconds)


def _read_ahead(parts: Iterator[Rows]) -> Iterator[Rows]:
    """The same parts; while one is being written, a thread reads the next."""
    with ThreadPoolExecutor(1, "load") as reader:
        coming = reader.submit(next, parts, None)
        while (part := coming.result()) is not None:
            coming = reader.submit(next, parts, None)
            yield part


def _pieces(rows: Rows, rate: float) -> list[Rows]:
    if not rate:
        return [rows]
    step = int(np.clip(rate * _PACE_S, 1, _PACED))
    return [rows.part(slice(at, at + step)) for at in range(0, len(rows.ids), step)]
