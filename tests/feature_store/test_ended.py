"""Deletes and the writes that were begun before them."""

from typing import Any

import numpy as np
import redis

from feature_store import FeatureStore, Status, scripts, write_scripts
from feature_store.lua import Script

CODES = np.arange(12).reshape(2, 6)
HIT, MISS = Status.HIT, Status.MISS


def test_a_write_begun_before_a_delete_does_not_revive(store: Any) -> None:
    store.write([1, 2], CODES, sequence=10)
    assert store.delete([1, 2]) == 2
    late = store.write([1, 2], CODES, sequence=[9, 10])
    assert (late.written, late.ignored) == (1, 1)  # not lower than what was stored: written
    assert store.lookup([1, 2]).status.tolist() == [MISS, HIT]
    assert store.write([1], CODES[:1], sequence=11).written == 1
    assert store.lookup([1]).status.tolist() == [HIT]


def test_a_delete_may_have_a_sequence_of_its_own(store: Any) -> None:
    store.write([1, 2], CODES, sequence=[10, 30])
    assert store.delete([1, 2, 3], sequence=20) == 1  # 2 is newer than the delete
    assert store.lookup([1, 2, 3]).status.tolist() == [MISS, HIT, MISS]
    late = store.write([1, 3], CODES, sequence=19)  # begun before, whatever was stored
    assert (late.written, late.ignored) == (0, 2)
    assert store.delete([1], sequence=5) == 0  # a late delete does not shorten memory
    assert store.write([1], CODES[:1], sequence=19).ignored == 1
    assert store.write([1, 3], CODES, sequence=20).written == 2
    assert store.lookup([1, 2, 3]).status.tolist() == [HIT] * 3


def test_writers_without_sequences_are_not_held_up(store: Any) -> None:
    store.write([1, 2], CODES, sequence=10)
    store.delete([1, 2], sequence=50)
    assert store.write([1, 2], CODES).written == 2
    assert store.lookup([1, 2]).status.tolist() == [HIT, HIT]


def test_a_block_in_between_changes_nothing(store: Any) -> None:
    store.write([1], CODES[:1], sequence=10)
    store.delete([1])
    store.block([1], "an ad that is gone")
    assert store.write([1], CODES[:1], sequence=9).ignored == 1
    store.unblock([1])
    assert store.lookup([1]).status.tolist() == [MISS]


def test_versions_remember_for_themselves(store: Any) -> None:
    store.write([1], CODES[:1], sequence=10)
    store.write([1], CODES[:1], version="2", sequence=1000)
    store.delete([1])
    assert store.write([1], CODES[:1], sequence=11).written == 1
    assert store.write([1], CODES[:1], version="2", sequence=11).ignored == 1


def test_what_is_over_is_forgotten(here: FeatureStore, valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        here.write([1], CODES[:1], sequence=10)
        here.delete([1])
        tag = here.keys.tag(1)
        ended = f"ads:ended{{{tag}}}".encode()
        (name,) = client.hkeys(ended)
        assert name == (1).to_bytes(8, "little") + b"\1\0"
        stone = client.hget(ended, name)
        assert int.from_bytes(stone[:6], "little") == 10
        now = client.time()[0]
        assert 890 <= int.from_bytes(stone[6:], "little") - now <= 900
        assert 0 < client.ttl(ended) <= 900
        client.hset(ended, name, stone[:6] + now.to_bytes(4, "little"))
        assert here.write([1], CODES[:1], sequence=9).written == 1
        others = [ad for ad in range(2, 500) if here.keys.tag(ad) == tag][:6]
        here.delete(others, sequence=3)  # finds the old one among those it looks at
        assert name not in client.hkeys(ended)
        assert len(client.hkeys(ended)) == len(others)


def test_every_script_is_loaded() -> None:
    known = [value for value in vars(write_scripts).values() if isinstance(value, Script)]
    assert set(known) <= set(scripts.ALL)
