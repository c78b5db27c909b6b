"""The doctor among other programs' keys."""

import numpy as np
import pytest
import redis
from conftest_tools import cluster

from feature_store import FeatureStore, versions
from feature_store.doctor import examine

IDS = np.arange(1, 301)
CODES = np.zeros((300, 6), np.uint16)


def test_another_programs_keys_are_counted_not_stumbled_over(valkey_url: str) -> None:
    with FeatureStore.connect(valkey_url) as store:
        store.write([1], [[1, 2, 3, 4, 5, 6]])
        store.admin("SET", "ads:r0001{abc}", "short")
        store.admin("SET", "ads:r00zz{abc}12345678", "no number")
        store.admin("HSET", "ads:r0001{abc}12345678", "a", "hash")
        store.admin("SET", "ads:b000105{abc}abc", "no hash")
        store.admin("HSET", "ads:b00zz05{abc}abc", "a", "no record")
        findings = [finding for finding in examine(store) if finding.level == "error"]
        (finding,) = findings
        assert finding.what.startswith("5 of 6 records")


def test_every_node_of_a_cluster_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        cluster() as nodes,
        FeatureStore.connect(f"redis+cluster://127.0.0.1:{nodes[0][0]}") as store,
    ):
        store.write(IDS, CODES)
        for port, _ in nodes:
            with redis.Redis(port=port) as client:
                name = next(client.scan_iter("ads:r0001*"))
                client.set(name, b"foreign")
        told = [finding.what for finding in examine(store) if finding.level == "error"]
        assert len(told) == 3
        for port, _ in nodes:
            assert any(line.startswith(f"127.0.0.1:{port}: 1 of ") for line in told)
        port, process = nodes[2]
        process.kill()
        process.wait()
        monkeypatch.setattr(versions, "TIMEOUT_S", 0.5)
        found = examine(store)
        assert any(
            f.level == "error" and f"no answer from 127.0.0.1:{port}" in f.what for f in found
        )
        for other, _ in nodes[:2]:
            own = [f.what for f in found if f.what.startswith(f"127.0.0.1:{other}: ")]
            assert any("server valkey" in line for line in own)
            assert any("records looked at" in line for line in own)
