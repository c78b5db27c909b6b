"""The compiled loops and their numpy twins give the same, byte for byte, on any input."""

import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store import compiled, record
from feature_store.decoding import CompiledReader, Share, call_of, collect, commands
from feature_store.errors import ProtocolError
from feature_store.keys import Keys
from feature_store.ops import Call, Node
from feature_store.reading import Asked, blank, lose
from feature_store.scatter import shares_of
from feature_store.single import groups_of
from feature_store.topology import Topology
from feature_store.wire import SLACK

if compiled.fast is None and not os.environ.get("CI"):
    pytest.skip("feature_store._fast is not built", allow_module_level=True)

FAST = compiled.fast
ids_ = st.lists(st.integers(1, 2**63 - 1), max_size=30)


NODE = Node("nowhere", 1)


layouts_ = st.sampled_from([None, 4, 9, 24])  # bucket bits; None: a key per record


def asked_of(ids: list[int], number: int = 1, bits: int | None = None) -> Asked:
    return Asked(np.array(ids, np.int64), number, bits, blank(len(ids)))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    nodes = draw(st.integers(1, 5))
    owner = draw(st.lists(st.integers(-1, nodes - 1), min_size=64, max_size=64))
    return Topology(tuple(Node("n", i) for i in range(nodes)), np.array(owner), clustered=True)


@settings(deadline=None)
@given(ids_, st.integers(0, 65535), st.sampled_from(["a", "n" * 64]), layouts_, st.integers(0, 9))
def test_commands_are_the_same(
    ids: list[int], number: int, namespace: str, bits: int | None, together: int
) -> None:
    keys = Keys(namespace)
    asked = asked_of(ids, number, bits)
    share = Share(NODE, None, groups_of(len(ids), together))
    assert call_of(keys, asked, share).payload == commands(keys, asked, share)


@settings(deadline=None)
@given(ids_, topologies(), layouts_)
def test_ids_are_shared_out_the_same(ids: list[int], topology: Topology, bits: int | None) -> None:
    asked = asked_of(ids, bits=bits)
    keys = Keys("ads")
    shares, lost = shares_of(topology, asked.ids)
    payloads = [call_of(keys, asked, share).payload for share in shares]
    compiled.fast = None
    try:
        plain, plainly_lost = shares_of(topology, asked.ids)
    finally:
        compiled.fast = FAST
    assert lost.tolist() == plainly_lost.tolist()
    assert [share.node for share in shares] == [share.node for share in plain]
    for share, other, payload in zip(shares, plain, payloads, strict=True):
        assert share.order is not None
        assert other.order is not None
        assert share.order.tolist() == other.order.tolist()
        assert np.array_equal(share.groups, other.groups)
        assert payload == commands(keys, asked, other)
    rows = [lost, *[share.order for share in shares]]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(ids)))


def sealed(ad_id: int, seed: int, version: int, bits: int) -> bytes:
    random = np.random.default_rng(seed)
    codes = random.integers(0, 65535, (1, 6)).astype(np.uint16)
    control = np.array([bits], np.uint64)
    flags = np.array([seed % 7], np.uint16)
    return record.encode(np.array([ad_id]), codes, flags, version, control).tobytes()


@st.composite
def replies(draw: st.DrawFn) -> tuple[Asked, Share, bytes]:
    """What is asked, in groups, and a reply: records, misses, other ids, other sizes, damage."""
    ids = draw(ids_)
    n = len(ids)
    asked = asked_of(ids, bits=draw(layouts_))
    share = Share(NODE, None, groups_of(n, draw(st.integers(0, 5))))
    groups = [2 * n + 1] if share.groups is None else share.groups.tolist()
    order = list(range(n))
    if draw(st.booleans()):  # a part of a cluster's lookup
        order = draw(st.permutations(order))[: draw(st.integers(0, n))]
        cuts = sorted(draw(st.lists(st.integers(0, len(order)), max_size=4)))
        bounds = [0, *cuts, len(order)]
        groups = [2 * (stop - start) for start, stop in pairwise(bounds)]
        groups[draw(st.integers(0, len(groups) - 1))] += draw(st.integers(0, 1))
        share = Share(NODE, np.array(order, np.intp), np.array(groups, np.int64))
    if draw(st.booleans()):  # the rest of the answer is known already
        asked.answer = blank(2 * n)
        asked.index = np.array(draw(st.permutations(range(2 * n)))[:n], np.intp)
    parts, at = [], 0
    for group in groups:
        count, pointed = divmod(group, 2)
        if asked.bits is None:
            if draw(st.integers(0, 15)) == 0:
                parts.append(b"-MOVED 12 127.0.0.1:7000\r\n")
                at += count
                continue
            parts.append(b"*%d\r\n" % (count + pointed))
        kinds = ["hit"] * 6 + ["miss", "mark", "version", "id", "size"]
        if asked.bits is not None and draw(st.integers(0, 7)) == 0:
            kinds += ["error"]
        for ad_id in [*(ids[i] for i in order[at : at + count]), *[0] * pointed]:
            kind = draw(st.sampled_from(kinds))
            seed = draw(st.integers(0, 50))
            bits = 16 if kind == "mark" else draw(st.sampled_from([0, 0, 8, 32, 1 << 20]))
            owner = ad_id + 1 if kind == "id" else ad_id
            value = sealed(owner, seed, 2 if kind == "version" else 1, bits)
            if kind == "size":
                value = value[: draw(st.integers(0, 23))]
            error = draw(st.sampled_from([b"-ASK 12 n:1\r\n", b"-WRONGTYPE of a key\r\n"]))
            others = {"miss": b"$-1\r\n", "error": error}
            parts.append(others.get(kind, b"$%d\r\n%b\r\n" % (len(value), value)))
        at += count
    data = bytearray(b"".join(parts))
    if data and draw(st.booleans()):
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(0, 255))
    return asked, share, bytes(data)


def answered(asked: Asked, share: Share, call: Call, data: bytes, cuts: list[int]) -> object:
    """What becomes of a reply that comes in pieces."""
    for array in (asked.answer.codes, asked.answer.flags, asked.answer.status):
        array[...] = 7
    asked.pointer, asked.corrupt, asked.lost = None, 0, False
    buffer = bytearray(len(data) + SLACK)
    at, done = 0, False
    try:
        for cut in [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]:
            buffer[at:cut] = data[at:cut]
            at = cut
            done = call.reader.scan(buffer, at)
            if done:
                break
    except ProtocolError:
        return "refused"
    if not done:
        return "going"
    refused = [
        (part.rows.tolist(), part.pointed, part.line) for part in collect(asked, share, call, None)
    ]
    for rows, *_ in refused:
        lose(asked, np.array(rows, np.intp))
    answer = asked.answer
    fields = (answer.codes, answer.flags, answer.status)
    return [field.tolist() for field in fields], asked.pointer, asked.corrupt, refused


@settings(max_examples=600, deadline=None)
@given(replies(), st.lists(st.integers(0, 1000), max_size=4))
@example((asked_of([]), Share(NODE), b"*1\r\n$-1\r\n"), [])
def test_replies_decode_the_same(drawn: tuple[Asked, Share, bytes], cuts: list[int]) -> None:
    asked, share, data = drawn
    keys = Keys("ads")
    outcomes = []
    for fast in (FAST, None):
        compiled.fast = fast
        try:
            call = call_of(keys, asked, share)
            assert isinstance(call.reader, CompiledReader) == (fast is not None)
            outcomes.append(answered(asked, share, call, data, cuts))
        finally:
            compiled.fast = FAST
    assert outcomes[0] == outcomes[1]


def test_arrays_that_are_too_small_are_refused() -> None:
    assert FAST is not None
    ids = np.arange(1, 10)
    asked = asked_of(ids.tolist())
    small, state = np.empty(2, np.uint8), bytearray(200)
    fields = (asked.answer.codes, asked.answer.flags, asked.answer.status)
    lot = (ids, None, None, None, *fields, state, 1, False)
    assert FAST.rows(*lot, bytearray(100), 0) == compiled.GOING
    for place, wrong in (
        (4, small),
        (5, small),
        (6, small),
        (7, bytearray(8)),
        (2, np.array([100])),
        (2, np.array([-2])),
        (3, np.arange(2)),
    ):
        bad = [*lot[:place], wrong, *lot[place + 1 :]]
        with pytest.raises(ValueError, match="smaller"):
            FAST.rows(*bad, bytearray(100), 10)
    with pytest.raises(ValueError, match="smaller"):
        FAST.rows(*lot, bytearray(9), 10)
    reply = b"*10\r\n" + b"$-1\r\n" * 10
    for place in (1, 3):  # positions beyond the arrays
        bad = [*lot[:7], bytearray(200), 1, False]
        bad[place] = np.full(9, 1 << 40)
        assert FAST.rows(*bad, bytearray(reply), len(reply)) == compiled.UNUSUAL
    with pytest.raises(ValueError, match="smaller"):
        FAST.near(ids, *[small] * 10, 4, 8, 1)
    with pytest.raises(ValueError, match="smaller"):
        FAST.keep(ids, *[small] * 10, 4, 8, 1)
    with pytest.raises(ValueError, match="smaller"):
        FAST.mget(ids, None, None, b"x", b"short", b"")
    with pytest.raises(ValueError, match="smaller"):
        FAST.mget(ids, np.array([9]), np.array([2]), b"x", bytes(192), b"")
    with pytest.raises(ValueError, match="smaller"):
        FAST.mget(ids, None, np.array([20]), b"x", bytes(192), b"")
    with pytest.raises(ValueError, match="smaller"):
        FAST.hgets(ids, np.array([-1]), np.array([2]), b"x", bytes(192), b"", 9)
    with pytest.raises(ValueError, match="bits"):
        FAST.hgets(ids, None, None, b"x", bytes(192), b"", 25)
    with pytest.raises(ValueError, match="smaller"):
        FAST.split(ids, np.arange(64), np.empty(3, np.intp), np.empty(65, np.int64), np.empty(4))
    with pytest.raises(TypeError):
        FAST.rows(ids)
    with pytest.raises(TypeError):
        FAST.talk([(1, 2)], 1.0)
    assert [FAST.lowest(np.array(x, np.int64)) for x in ([], [3, -7, 5])] == [1, -7]
