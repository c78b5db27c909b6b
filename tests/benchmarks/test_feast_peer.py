"""The peer in an environment of its own: had or left out with the reason, never in silence."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.feast import compare, environment, peer
from feature_store import FeatureStore
from feature_store.embedded import EmbeddedValkey

MADE = environment.home(environment.FOLDER) / ".ready"


def test_without_an_index_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(environment, "PINNED", ("no-such-package-as-this==1.0",))
    with EmbeddedValkey() as server, FeatureStore.connect(server.url) as store:
        ids = np.arange(1, 11)
        found = compare.run(server, store, (ids, np.zeros((10, 6), np.uint16)), (5,), tmp_path, 1)
    assert set(found) == {"left_out"}
    assert "no-such-package-as-this" in found["left_out"]
    assert "Feast is left out" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())  # the next run begins anew


def test_a_peer_that_ends_says_its_last_words() -> None:
    with (
        EmbeddedValkey() as server,
        pytest.raises(environment.NoPeerError, match="No module named 'feast'"),
        peer.opened(Path(sys.executable), server.port),
    ):
        pass


@pytest.mark.skipif(not MADE.exists(), reason="made by `python -m benchmarks lookup --feast`")
def test_feast_reads_what_we_read() -> None:
    random = np.random.default_rng(1)
    ids, codes = np.arange(1, 501), random.integers(0, 65535, (500, 6)).astype(np.uint16)
    with EmbeddedValkey() as server, FeatureStore.connect(server.url) as store:
        store.write(ids, codes)
        found = compare.run(server, store, (ids, codes), (100, 500), environment.FOLDER, 0.05)
    for size in (100, 500):
        assert found["sizes"][size]["p50_us"]["feast"] > 0
    assert found["sizes"][500]["ratio"]["bar"] == compare.BAR
