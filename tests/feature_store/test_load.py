"""Bulk loads: from arrays and files, cut off and resumed, late batches ignored."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest_tools import opened

from feature_store import FeatureStore, Flag, Status, sources
from feature_store.errors import InputError
from feature_store.load import LoadOptions, load
from feature_store.sources import checked

N = 70_000
IDS = np.arange(1, N + 1)
CODES = np.random.default_rng(2).integers(0, 65535, (N, 6)).astype(np.uint16)


PART = 1 << 16


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PART", PART)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(CODES.ravel()), 6)
    flags = pa.array(np.full(N, 2, np.uint16))
    pq.write_table(pa.table({"ad_id": IDS, "codes": lists, "flags": flags}), folder / "a.parquet")
    columns = {f"c{i}": CODES[:, i] for i in range(6)}
    pq.write_table(pa.table({"ad_id": IDS, **columns, "sequence": IDS}), folder / "b.parquet")
    np.savez(folder / "c.npz", ad_ids=IDS, codes=CODES, flags=np.full(N, 2))
    return {path.name[0]: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_files_are_loaded_whole(here: FeatureStore, files: dict[str, Path], name: str) -> None:
    calls: list[tuple[int, int]] = []
    options = LoadOptions(progress=lambda done, total: calls.append((done, total)))
    result = load(here, files[name], options)
    assert (result.version, result.rows, result.written, result.skipped) == ("1", N, N, 0)
    assert calls[-1] == (N, N)
    found = here.lookup(IDS, deadline=10)
    np.testing.assert_array_equal(found.codes, CODES)
    assert (found.flags == (0 if name == "b" else Flag.REVIEW)).all()
    assert here.versions()[0].records == N


class CutError(Exception):
    """The load was interrupted."""


@pytest.mark.parametrize("name", ["b", "c"])
def test_a_load_that_was_cut_off_goes_on(
    here: FeatureStore, files: dict[str, Path], name: str
) -> None:
    def cut(done: int, _: int) -> None:
        if done > PART:
            raise CutError

    with pytest.raises(CutError):
        load(here, files[name], LoadOptions(version="2", progress=cut))
    result = load(here, files[name], LoadOptions(version="2"))
    assert (result.skipped, result.written) == (PART, N - PART)
    np.testing.assert_array_equal(here.lookup(IDS, version="2", deadline=10).codes, CODES)
    again = load(here, files[name], LoadOptions(version="2"))  # finished loads begin anew
    assert (again.skipped, again.written) == (0, N)
    other = load(here, files[name], LoadOptions(version="3"))
    assert other.skipped == 0


def test_late_batches_change_nothing(here: FeatureStore) -> None:
    load(here, checked(IDS[:100], CODES[:100]), LoadOptions(sequence=20))
    late = load(here, checked(IDS[:150], CODES[50:200]), LoadOptions(sequence=10))
    assert (late.written, late.ignored) == (50, 100)
    np.testing.assert_array_equal(here.lookup(IDS[:100]).codes, CODES[:100])


def test_a_paced_load_takes_its_time(here: FeatureStore) -> None:
    result = load(here, checked(IDS[:300], CODES[:300]), LoadOptions(rate=3000))
    assert result.seconds >= 0.09
    assert (here.lookup(IDS[:300]).status == Status.HIT).all()


def test_a_paced_write_is_whole_and_takes_its_time(driver: str, valkey_url: str) -> None:
    ids = np.append(IDS[:600], IDS[:100])  # some come twice: the later row counts
    with opened(driver, valkey_url) as store:
        began = time.monotonic()
        result = store.write(ids, CODES[:700], rate=6000)
        assert time.monotonic() - began >= 0.09  # 600 rows
        assert (result.written, result.ignored) == (700, 0)
        late = store.write(IDS[:700], CODES[:700], sequence=0, rate=1e9)
        assert (late.written, late.ignored) == (700, 0)
        found = store.lookup(IDS[:700], deadline=10)
        np.testing.assert_array_equal(found.codes, CODES[:700])
        store.write(IDS[:300], CODES[:300], sequence=9)
        late = store.write(IDS[:400], CODES[300:700], sequence=8, rate=1e6)
        assert (late.written, late.ignored) == (100, 300)


def test_files_that_cannot_be_read_are_refused(here: FeatureStore, tmp_path: Path) -> None:
    wrong = {
        "missing.npz": None,
        "text.npz": b"hello",
        "text.parquet": b"hello",
        "what.csv": b"1,2",
    }
    for name, content in wrong.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError):
            load(here, path)
    np.savez(tmp_path / "no_codes.npz", ad_ids=IDS[:3])
    pq.write_table(pa.table({"ad_id": [1], "c0": [1]}), tmp_path / "few.parquet")
    pq.write_table(pa.table({"ad_id": [1], "codes": [[1, 2]]}), tmp_path / "short.parquet")
    uneven = {"ad_id": [1, 2], "codes": [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7]]}
    pq.write_table(pa.table(uneven), tmp_path / "uneven.parquet")
    gap = {"ad_id": [1, 2], "codes": [[1, 2, 3, 4, 5, 6], None]}
    pq.write_table(pa.table(gap), tmp_path / "gap.parquet")
    for name in ("no_codes.npz", "few.parquet", "short.parquet", "uneven.parquet", "gap.parquet"):
        with pytest.raises(InputError):
            load(here, tmp_path / name)
    assert (here.lookup(IDS[:3]).status == Status.MISS).all()
