"""The published vectors, decoded with struct and integers alone: what another language does."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from feature_store import FeatureStore, record
from feature_store.errors import InputError
from feature_store.fusion import feature_ids

DOCS = Path(__file__).parents[2] / "docs"
VECTORS = json.loads((DOCS / "wire_format_vectors.json").read_text())
GOLDEN = 0x9E3779B97F4A7C15
MASK = 2**64 - 1


def mix(x: int) -> int:
    x ^= x << 21 & MASK
    x ^= x >> 24
    return x ^ (x << 25 & MASK)


def checksum(ad_id: int, raw: bytes) -> int:
    w0, w1, w2 = struct.unpack("<3Q", raw)
    x = mix(ad_id * GOLDEN & MASK ^ w0)
    x = mix(x ^ w1)
    x = mix(x ^ w2 & (1 << 48) - 1)
    x ^= x >> 32
    x ^= x >> 16
    return x & 0xFFFF


def crc16(data: bytes) -> int:
    """CRC-16/XMODEM, as the cluster specification gives it."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def key_of(ad_id: int, version: int) -> bytes:
    tag = VECTORS["tags"][(ad_id * GOLDEN & MASK) >> 58]
    return f"ads:r{version:04x}{{{tag}}}".encode() + struct.pack("<q", ad_id)


def read(ad_id: int, version: int, raw: bytes) -> tuple[str, list[int], int, int]:
    """(status, codes, flags, sequence)"""
    *codes, flags, number, control = struct.unpack("<6HHHQ", raw)
    sound = control & 7 == 1 and number == version and checksum(ad_id, raw) == control >> 48
    assert sound
    status = "BLOCKED" if control & 0x30 else "MISS" if control & 8 else "HIT"
    return status, codes, flags, control >> 6 & (1 << 42) - 1


@pytest.mark.parametrize("vector", VECTORS["records"], ids=lambda vector: vector["id"])
def test_records_decode_with_struct(vector: dict[str, Any]) -> None:
    ad_id, version = int(vector["id"]), vector["version"]
    assert key_of(ad_id, version).hex() == vector["key"]
    expected = (vector["status"], vector["codes"], vector["flags"], int(vector["sequence"]))
    assert read(ad_id, version, bytes.fromhex(vector["value"])) == expected


@pytest.mark.parametrize("vector", VECTORS["pointers"], ids=lambda vector: vector["revision"])
def test_pointers_decode_with_struct(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["value"])
    _, codes, _, _ = read(0, vector["active"], raw)
    fields = [vector["active"], vector["previous"], vector["last"]]
    assert codes[:3] == fields
    assert codes[3] | codes[4] << 16 == vector["revision"]


def test_tags_are_spread_evenly() -> None:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    expected: dict[int, str] = {}
    for number in range(36**3):
        text = digits[number // 1296] + digits[number // 36 % 36] + digits[number % 36]
        expected.setdefault(crc16(text.encode()) % 16384 // 256, text)
        if len(expected) == 64:
            break
    assert [expected[i] for i in range(64)] == VECTORS["tags"]


def test_syndromes_repair_a_checksum() -> None:
    raw = bytearray(bytes.fromhex(VECTORS["records"][0]["value"]))
    before = checksum(1, bytes(raw))
    for bit, syndrome in enumerate(VECTORS["syndromes"]):
        raw[bit // 8] ^= 1 << bit % 8
        assert checksum(1, bytes(raw)) == before ^ syndrome
        raw[bit // 8] ^= 1 << bit % 8


def field_of(ad_id: int) -> bytes:
    return struct.pack("<q", ad_id).rstrip(b"\0")


def bucket_of(ad_id: int, version: int, bits: int) -> bytes:
    hashed = ad_id * GOLDEN & MASK
    number = (hashed << 6 & MASK) >> 64 - bits if bits else 0
    name = f"ads:b{version:04x}{bits:02x}{{{VECTORS['tags'][hashed >> 58]}}}"
    return name.encode() + struct.pack("<I", number)[:3]


@pytest.mark.parametrize("vector", VECTORS["buckets"], ids=lambda vector: vector["id"])
def test_buckets_are_found_with_struct(vector: dict[str, Any]) -> None:
    ad_id, version, bits = int(vector["id"]), vector["version"], vector["bits"]
    assert bucket_of(ad_id, version, bits).hex() == vector["key"]
    assert field_of(ad_id).hex() == vector["field"]
    expected = (vector["status"], vector["codes"], vector["flags"], int(vector["sequence"]))
    assert read(ad_id, version, bytes.fromhex(vector["value"])) == expected


def test_a_stranger_reads_the_compact_layout(valkey_url: str) -> None:
    random = np.random.default_rng(4)
    ids = np.concatenate([np.arange(1, 400), random.integers(1, 2**63, 400), [2**63 - 1, 256]])
    ids = np.unique(ids)
    codes = random.integers(0, 65535, (len(ids), 6))
    options = {"layout": "compact", "expected_ads": 1e5}
    with FeatureStore.connect(valkey_url, **options) as store:
        store.write(ids, codes, 5, sequence=77)
        store.block([3], "why")
    with redis.Redis.from_url(valkey_url) as client:
        registry = client.hgetall(f"ads:versions{{{VECTORS['tags'][0]}}}")
        number, state, layout, bits = registry[b"1"].decode().split(" ")
        assert (state, layout) == ("kept", "compact")
        for ad_id, own in zip(ids.tolist(), codes.tolist(), strict=True):
            raw = client.hget(bucket_of(ad_id, int(number), int(bits)), field_of(ad_id))
            status = "BLOCKED" if ad_id == 3 else "HIT"
            assert read(ad_id, int(number), raw) == (status, own, 5, 77)


def test_a_stranger_reads_what_the_store_wrote(plain: FeatureStore, valkey_url: str) -> None:
    codes = np.arange(60).reshape(10, 6)
    plain.write(range(1, 11), codes, 5, sequence=77)
    plain.block([3], "why")
    with redis.Redis.from_url(valkey_url) as client:
        pointer = client.get(f"ads:v{{{VECTORS['tags'][0]}}}")
        active = struct.unpack("<H", pointer[:2])[0]
        registry = client.hgetall(f"ads:versions{{{VECTORS['tags'][0]}}}")
        assert registry == {b"1": f"{active} kept".encode()}
        for ad_id in range(1, 11):
            raw = client.get(key_of(ad_id, active))
            status = "BLOCKED" if ad_id == 3 else "HIT"
            assert read(ad_id, active, raw) == (status, codes[ad_id - 1].tolist(), 5, 77)


def finalize(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


@pytest.mark.parametrize("vector", VECTORS["features"], ids=lambda vector: str(vector["codes"][0]))
def test_feature_ids_hash_with_integers(vector: dict[str, Any]) -> None:
    codes = vector["codes"]
    columns = [(0,), (0, 1), (2,), (2, 3), (4,), (4, 5), *[tuple(range(n)) for n in range(3, 7)]]
    ids = []
    for number, chosen in enumerate(columns, 1):
        h = number
        for column in chosen:
            h = finalize(h * GOLDEN + codes[column] + 1 & MASK)
        ids.append(h)
    if 65535 in codes:
        ids = [0] * 10
    assert [str(h) for h in ids] == vector["ids"]
    array = np.array([codes], np.uint16)
    assert feature_ids(array, prefixes=True)[0].tolist() == ids
    assert feature_ids(array)[0].tolist() == ids[:6]
    bucketed = feature_ids(array, 1_000_000, prefixes=True)[0].tolist()
    assert bucketed == vector["ids_of_a_million_buckets"]
    assert bucketed == [h % 1_000_000 + 1 if any(ids) else 0 for h in ids]


def test_feature_ids_refuse_other_shapes() -> None:
    for wrong in (np.zeros((2, 5), int), np.zeros(6, int), np.zeros((1, 6))):
        with pytest.raises(InputError):
            feature_ids(wrong)
    with pytest.raises(InputError):
        feature_ids(np.zeros((1, 6), int), buckets=-1)


def test_the_page_names_every_flag() -> None:
    page = (DOCS / "wire_format.md").read_text()
    for flag in record.Flag:
        assert f"| {int(flag).bit_length() - 1} | `{flag.name}` |" in page
