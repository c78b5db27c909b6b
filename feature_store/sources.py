"""Where bulk loads come from: arrays in memory, .npz files, Parquet files.

In: a path or arrays. Out: checked `Rows`, a part at a time, and a fingerprint that names the
content, so that a load which was cut off goes on where it stopped.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .errors import InputError, MissingExtraError
from .ids import check_codes, check_flags, check_ids, check_sequence
from .record import CODES
from .write import Rows

PART = 1 << 18  # rows of compact buckets are written together as far as a part has them
_EDGE = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Rows to load: how many, what they are called, and the rows from an offset on."""

    total: int
    fingerprint: str
    path: Path | None
    arrays: Rows | None

    def rows(self, offset: int) -> Iterator[Rows]:
        """Parts of at most PART rows, from row `offset` on."""
        if self.arrays is not None:
            for start in range(offset, self.total, PART):
                yield self.arrays.part(slice(start, start + PART))
        elif self.path is not None:
            yield from _parquet_rows(self.path, offset)


def checked(
    ad_ids: Any,
    codes: ArrayLike,
    flags: ArrayLike | None = None,
    sequence: ArrayLike | None = None,
) -> Rows:
    """Rows of arrays. Raises InputError."""
    ids = check_ids(ad_ids)
    n = len(ids)
    return Rows(ids, check_codes(codes, n), check_flags(flags, n), check_sequence(sequence, n))


def from_arrays(rows: Rows) -> Source:
    """Arrays in memory; named by a digest of all their bytes."""
    digest = hashlib.sha256(rows.ids.tobytes() + rows.codes.tobytes() + rows.flags.tobytes())
    if rows.sequence is not None:
        digest.update(rows.sequence.tobytes())
    return Source(len(rows.ids), digest.hexdigest()[:32], None, rows)


def open_source(path: Path) -> Source:
    """A .parquet file with columns ad_id, codes (lists of 6) or c0..c5, and perhaps flags and
    sequence; or an .npz with arrays ad_ids, codes, and perhaps flags and sequence."""
    if not path.is_file():
        raise InputError(f"no file {path}")
    if path.suffix == ".npz":
        return _npz(path)
    if path.suffix in (".parquet", ".pq"):
        reader = _parquet(path)
        total = int(reader.metadata.num_rows)
        reader.close()
        return Source(total, _fingerprint(path), path, None)
    raise InputError(f"expected a .parquet or .npz file; found {path.name}")


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_EDGE))
        file.seek(max(size - _EDGE, 0))
        digest.update(file.read(_EDGE))
    return digest.hexdigest()[:32]


def _npz(path: Path) -> Source:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} is no .npz file that can be read: {error}") from error
    for name in ("ad_ids", "codes"):
        if name not in arrays:
            raise InputError(f"{path} has no array {name!r}; it has {', '.join(sorted(arrays))}")
    rows = checked(arrays["ad_ids"], arrays["codes"], arrays.get("flags"), arrays.get("sequence"))
    return Source(len(rows.ids), _fingerprint(path), path, rows)


def _parquet(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Parquet files need pyarrow: pip install pyarrow") from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is no Parquet file that can be read: {error}") from error


def _parquet_rows(path: Path, offset: int) -> Iterator[Rows]:
    reader = _parquet(path)
    try:
        names = set(reader.schema_arrow.names)
        singles = [f"c{i}" for i in range(CODES)]
        if "ad_id" not in names or not ("codes" in names or names.issuperset(singles)):
            raise InputError(
                f"{path} must have columns ad_id, and codes or {singles[0]}..{singles[-1]}; "
                f"found {', '.join(sorted(names))}"
            )
        for batch in reader.iter_batches(PART):
            n = batch.num_rows
            if offset >= n:
                offset -= n
                continue
            yield _batch_rows(batch.slice(offset), names, singles)
            offset = 0
    finally:
        reader.close()


def _batch_rows(batch: Any, names: set[str], singles: list[str]) -> Rows:
    from pyarrow import compute

    n = batch.num_rows

    def column(name: str) -> Any:
        return batch.column(name).to_numpy(zero_copy_only=False)

    if "codes" in names:
        lists = batch.column("codes")
        lengths = compute.list_value_length(lists).to_numpy(zero_copy_only=False)
        if not (lengths == CODES).all():  # neither longer, shorter nor null
            raise InputError(f"every list in codes must hold {CODES} numbers")
        codes = lists.flatten().to_numpy(zero_copy_only=False).reshape(n, CODES)
    else:
        codes = np.stack([column(name) for name in singles], axis=1)
    optional = {name: column(name) for name in ("flags", "sequence") if name in names}
    return checked(column("ad_id"), codes, optional.get("flags"), optional.get("sequence"))
