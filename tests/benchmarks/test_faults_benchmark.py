"""Faults, run small: every fault does happen, and every promise has a verdict."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.faults import judging
from benchmarks.faults.silence import Relay
from benchmarks.servers import until
from feature_store import FeatureStore, Status
from feature_store.embedded import EmbeddedValkey

HOUSE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def faults() -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks", "faults", "--scale", "0.01"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=HOUSE)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found["faults"]


def test_takedowns_and_flips_reach_every_client(faults: dict[str, Any]) -> None:
    takedown = faults["takedown"]
    assert takedown["wait_ms"]["n"] == 8 * 25
    assert takedown["writes_per_s"] > 0
    assert takedown["near_cache_share"] > 0.1
    assert faults["flips"]["activate_ms"]["n"] == faults["flips"]["rollback_ms"]["n"] == 8 * 3


def test_a_lost_shard_takes_only_its_own_rows(faults: dict[str, Any]) -> None:
    for kind in ("hung", "killed"):
        found = faults["shards"][kind]
        assert found["lookup_ms"]["n"] > 5
        assert found["exceptions"]["value"] == 0
        assert found["lost_rows_unavailable"] > 0.9
    assert faults["shards"]["recovery_after_the_cluster_ms"]["n"] == 1


def test_nothing_old_is_trusted_and_nothing_mixes(faults: dict[str, Any]) -> None:
    for found in faults["channel"].values():
        assert 0 < found["value"] < 10_000
    for found in faults["mixing"].values():
        assert found["mixed_responses"]["value"] == 0
        assert found["flips"] > 0


def test_verdicts() -> None:
    few, many = np.arange(100.0), np.arange(20_000.0) / 20_000
    assert judging.p99(few, 1000)["verdict"] == "inconclusive"
    assert judging.p99(many, 1.0)["verdict"] == "met"
    assert judging.p99(many, 0.5)["verdict"] == "not met"
    assert judging.worst(few, 98.9)["verdict"] == "not met"
    assert judging.none(0, 5)["verdict"] == "met"


def test_a_silent_relay_delivers_nothing_and_closes_nothing() -> None:
    with (
        EmbeddedValkey() as server,
        Relay.before(server.port) as relay,
        FeatureStore.connect(f"redis://127.0.0.1:{relay.port}") as store,
    ):
        store.write([1], [[1, 2, 3, 4, 5, 6]])
        relay.silence(only=b"no such word")
        assert store.lookup([1], deadline=5).status[0] == Status.HIT
        relay.silence()
        assert store.lookup([1], deadline=0.05).status[0] == Status.UNAVAILABLE
        relay.speak()
        # A server that was silent for long is left out until it has answered a PING.
        until(lambda: store.lookup([1], deadline=5).status[0] == Status.HIT, "no row came back")
