"""The compact layout beside the default one: begun, followed, mixed, cached, and its size."""

from typing import Any

import numpy as np
import pytest
import redis
from conftest_tools import until

from feature_store import FeatureStore, Status
from feature_store.buckets import Commands, bucket, bucket_of, field, hash_range, id_of, is_bucket
from feature_store.errors import InputError, LayoutError, ServerError
from feature_store.keys import Keys, tag_of
from feature_store.layout import bits_for
from feature_store.near import NearTable, Ranges
from feature_store.record import Decoded, hash_ids
from feature_store.wire import command

KEYS = Keys("ads")
RANDOM = np.random.default_rng(7)
IDS = np.unique(np.concatenate([np.arange(1, 300), RANDOM.integers(1, 2**63, 300), [2**63 - 1]]))
CODES = RANDOM.integers(0, 65535, (len(IDS), 6)).astype(np.uint16)
COMPACT: dict[str, Any] = {"layout": "compact", "expected_ads": 1e5}


def test_commands_are_those_of_one_id_each() -> None:
    for bits in (4, 9, 24):
        ids = IDS.tolist()
        expected = [command("HGET", bucket(KEYS, i, 258, bits), field(i)) for i in ids]
        commands = Commands(KEYS, IDS, 258, bits)
        assert commands.payload(slice(0, len(IDS))) == b"".join(expected)
        assert commands.payload(slice(7, 9)) == b"".join(expected[7:9])


def test_a_bucket_holds_a_range_of_hashes_and_a_field_is_the_id() -> None:
    hashed = hash_ids(IDS)
    assert (bucket_of(hashed, 9) < 512).all()
    for ad_id, own, tag in zip(IDS.tolist(), hashed.tolist(), tag_of(hashed), strict=True):
        name = bucket(KEYS, ad_id, 3, 9)
        assert is_bucket(name)
        assert not is_bucket(KEYS.record(ad_id, 3))
        lowest, highest = hash_range(name)
        assert lowest <= own <= highest
        assert highest - lowest == 2 ** (58 - 9) - 1
        assert lowest >> 58 == highest >> 58 == tag
        assert id_of(field(ad_id)) == ad_id


def test_buckets_stay_small_whatever_the_ids() -> None:
    for n, ids in (
        (100_000, np.arange(1, 100_001)),
        (100_000, np.arange(1, 100_001) * 1000),
        (100_000, RANDOM.integers(1, 2**53, 100_000)),
        (100_000, np.arange(1, 100_001) << 40),
    ):
        bits = bits_for(n)
        hashed = hash_ids(ids.astype(np.int64))
        held = np.bincount((hashed >> np.uint64(58 - bits)).astype(np.int64))
        assert held.mean() <= 32
        assert held.max() < 128  # the servers keep up to 512 packed


def test_bits_follow_the_expected_catalogue() -> None:
    assert [bits_for(ads) for ads in (1, 1e6, 2**20 * 2, 500e6, 1e12)] == [4, 9, 10, 18, 24]


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "dense"},
        {"layout": "compact"},
        {"expected_ads": 5},
        {"layout": "default", "expected_ads": 5},
        {"layout": "compact", "expected_ads": 0},
        {"layout": "compact", "expected_ads": "many"},
    ],
)
def test_wrong_settings_are_refused(valkey_url: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        FeatureStore.connect(valkey_url, **options)


def test_a_version_keeps_its_layout_and_others_follow(valkey_url: str, plain: Any) -> None:
    plain.write(IDS, CODES)
    with FeatureStore.connect(valkey_url, **COMPACT) as compact:
        with pytest.raises(LayoutError, match=r"layout='compact'.*'1'.*layout='default'"):
            compact.write(IDS, CODES)
        compact.write(IDS, CODES[::-1], version="2")
        compact.block(IDS[:1], "a store of any layout may take ads down")
    with (
        FeatureStore.connect(valkey_url, layout="default") as strict,
        pytest.raises(LayoutError, match=r"layout='default'.*'2'.*layout='compact'"),
    ):
        strict.write(IDS, CODES, version="2")
    assert plain.activate("2").records == len(IDS)
    found = plain.lookup(IDS)
    np.testing.assert_array_equal(found.codes[1:], CODES[::-1][1:])
    assert found.status[0] == Status.BLOCKED
    plain.write(IDS[:5], CODES[:5])  # into the compact version, without a setting
    plain.write(IDS, CODES, version="3")  # begins as the active one is
    with redis.Redis.from_url(valkey_url) as client:
        assert not list(client.scan_iter(b"ads:r0002*"))
        assert not list(client.scan_iter(b"ads:r0003*"))


def test_changes_reach_versions_of_both_layouts(valkey_url: str, plain: Any) -> None:
    plain.write(IDS, CODES, 1)
    with FeatureStore.connect(valkey_url, **COMPACT) as compact:
        compact.write(IDS, CODES, 1, version="2")
    assert plain.update_flags(IDS[:9], set_bits=6, clear_bits=1) == 18
    plain.block(IDS[3:6], "why")
    assert plain.delete(IDS[6:9]) == 3
    for version in ("1", "2"):
        found = plain.lookup(IDS[:10], version=version)
        assert found.flags.tolist() == [6, 6, 6, 0, 0, 0, 0, 0, 0, 1]
        assert found.status.tolist() == [1, 1, 1, 4, 4, 4, 0, 0, 0, 1]
    assert [version.records for version in plain.versions()] == [len(IDS) - 3] * 2
    plain.activate("2")
    plain.activate("1")
    plain.retire("2")
    with redis.Redis.from_url(valkey_url) as client:
        until(lambda: not list(client.scan_iter(b"ads:b*")))


def test_foreign_values_in_buckets_are_misses(valkey_url: str) -> None:
    with (
        FeatureStore.connect(valkey_url, **COMPACT) as store,
        redis.Redis.from_url(valkey_url) as client,
    ):
        store.write(IDS, CODES)
        bits = store._core.view.bits[1]
        one, two, three, four = IDS[[1, 50, 100, 150]].tolist()
        client.hset(bucket(KEYS, one, 1, bits), field(one), b"x" * 24)
        client.hset(bucket(KEYS, two, 1, bits), field(two), b"short")
        client.set(bucket(KEYS, three, 1, bits), b"not a hash")
        other = client.hget(bucket(KEYS, int(IDS[0]), 1, bits), field(int(IDS[0])))
        client.hset(bucket(KEYS, four, 1, bits), field(four), other)
        found = store.lookup(IDS)
        missing = set(IDS[found.status == Status.MISS].tolist())
        assert {one, two, three, four} <= missing
        assert store.counters["corrupt"] == len(missing)
        assert (found.status != Status.UNAVAILABLE).all()
        hit = found.status == Status.HIT
        np.testing.assert_array_equal(found.codes[hit], CODES[hit])


def test_a_registry_of_a_newer_release_is_refused(valkey_url: str, plain: Any) -> None:
    plain.write(IDS, CODES)
    with redis.Redis.from_url(valkey_url) as client:
        client.hset(plain.keys.registry, b"1", b"1 kept folded 7")
    with pytest.raises(ServerError, match="newer"), FeatureStore.connect(valkey_url) as store:
        store.versions()


def test_a_near_cache_follows_buckets(valkey_url: str, loops: str) -> None:
    with (
        FeatureStore.connect(valkey_url, **COMPACT) as writer,
        FeatureStore.connect(valkey_url, near_cache_bytes=1 << 20) as reader,
    ):
        writer.write(IDS, CODES)

        def cached() -> bool:
            before = reader.counters.get("near hits", 0)
            reader.lookup(IDS)
            return reader.counters.get("near hits", 0) - before == len(IDS)

        until(cached)
        writer.write(IDS[:1], CODES[5:6])
        until(lambda: reader.lookup(IDS[:1]).codes[0].tolist() == CODES[5].tolist())
        writer.block(IDS[1:2], "why")
        until(lambda: reader.lookup(IDS[1:2]).status[0] == Status.BLOCKED)
        np.testing.assert_array_equal(reader.lookup(IDS[2:]).codes, CODES[2:])


def test_dropped_ranges_are_forgotten_and_nothing_else(loops: str) -> None:
    n = len(IDS)
    rows = Decoded(CODES, np.zeros(n, np.uint16), np.ones(n, np.uint8), np.ones(n, np.bool_))
    for size in (200, 20_000, 2_000_000):
        table = NearTable(size)
        table.put(IDS, 1, rows, table.moment())
        before = table.get(IDS, 1).hit
        names = [bucket(KEYS, ad_id, 1, bits) for ad_id, bits in ((7, 4), (8, 9), (2**62, 6))]
        moment = table.moment()
        table.drop_ranges(Ranges([hash_range(name) for name in names]))
        own = [{bucket(KEYS, i, 1, bits) for bits in (4, 6, 9)} for i in IDS.tolist()]
        named = np.array([bool(each & set(names)) for each in own])
        assert named.any()
        np.testing.assert_array_equal(table.get(IDS, 1).hit, before & ~named)
        table.put(IDS, 1, rows, moment)  # read before the change was heard of
        assert not table.get(IDS, 1).hit[named].any()


@pytest.mark.parametrize("kind", ["dense", "random"])
def test_a_record_takes_less_than_48_bytes(valkey_url: str, kind: str) -> None:
    n = 65_536
    ids = np.arange(1, n + 1) if kind == "dense" else RANDOM.integers(1, 2**53, n)
    codes = RANDOM.integers(0, 65535, (n, 6)).astype(np.uint16)
    with (
        redis.Redis.from_url(valkey_url) as client,
        FeatureStore.connect(valkey_url, layout="compact", expected_ads=n) as store,
    ):
        store.write(ids[:1], codes[:1])
        before = client.info("memory")["used_memory"]
        store.write(ids, codes)
        after = client.info("memory")["used_memory"]
    assert (after - before) / n < 48
