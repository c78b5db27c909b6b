"""What is decided before the model is asked: by people, by near copies, by the router."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store import Flag, Status
from serving.checks.duplicates import Creative, Creatives, words_of
from serving.checks.subjects import Subject
from serving.checks.vectors import Patience
from serving.errors import UnavailableError
from tests.serving.cascade_support import (
    D,
    WordTowers,
    probe,
    probes,
    vector_of,
    write_policy,
)
from tests.serving.checks_support import Parts, until

LONG = "warm wool for cold days in all sizes with free returns for thirty days made in small runs"


@pytest.fixture
def parts(routed: Parts) -> Parts:
    return routed


def cosine_router(encoder: str) -> dict[str, Any]:
    calibration = {"scale": 20.0, "bias": -10.0}  # even at a cosine of 0.5
    rule = {"encoder": encoder, "below": 0.02, "above": 0.98, "calibration": calibration}
    return {"relevance": {"router": rule}}


async def put(parts: Parts, ad_id: int, title: str, text: str = "") -> None:
    """As ingest does, with the vector that the towers give."""
    await parts.put(ad_id, title, text, vector=vector_of(f"{title} {text}"))


async def test_clear_relevance_is_routed_and_the_band_between_is_asked(
    parts: Parts, folder: Path, revision: str
) -> None:
    write_policy(folder, "default", **cosine_router(revision))
    parts.bench.book.reload()
    ads = [{"title": "red dress"}, {"title": "garden hose"}, {"title": "red garden"}]
    found = await parts.results("relevance", query="Red dress", ads=ads)
    assert [r["source"] for r in found] == ["router", "router", "llm"]
    assert [r["label"] for r in found[:2]] == ["yes", "no"]
    assert found[0]["score"] > 0.98
    assert found[1]["score"] < 0.02
    assert len(parts.engine.asked) == 1
    again = await parts.results("relevance", query=" RED\tdress", ads=ads)
    assert [r["source"] for r in again] == ["cache"] * 3
    assert [r["score"] for r in again] == [r["score"] for r in found]


async def test_without_the_model_the_router_stands_in_where_it_is_not_sure(
    parts: Parts, folder: Path, revision: str
) -> None:
    write_policy(folder, "default", **cosine_router(revision), risk=probes(revision))
    parts.bench.book.reload()
    parts.engine.away = UnavailableError("away")
    body: dict[str, Any] = {"query": "red dress", "ads": [{"title": "red garden"}]}
    answer = (await parts.post("relevance", **body)).json()
    assert answer["results"][0]["source"] == "router"
    assert 0.02 < answer["results"][0]["score"] < 0.98
    assert [d["what"] for d in answer["degraded"]] == ["llm"]
    risk = {"ads": [{"title": "casino in a quiet green park"}, {"title": "casino"}]}
    found = (await parts.post("risk", **risk)).json()
    assert [r["verdict"] for r in found["results"]] == ["review", "block"]  # the second is clear
    assert found["results"][0]["categories"]["gambling"] > 0
    assert len(found["degraded"]) == 1
    parts.engine.away = None
    await until(lambda: parts.bench.engine._away is None)
    assert (await parts.results("relevance", **body))[0]["source"] == "llm"


async def test_a_router_of_other_encoders_says_nothing(parts: Parts, folder: Path) -> None:
    write_policy(folder, "default", **cosine_router("another"), risk=probes("another"))
    parts.bench.book.reload()
    found = await parts.results("relevance", query="red dress", ads=[{"title": "red dress"}])
    assert [r["source"] for r in found] == ["llm"]
    assert (await parts.results("risk", ads=[{"title": "hat"}]))[0]["source"] == "llm"


async def test_clear_risk_is_routed_by_prototypes(
    parts: Parts, folder: Path, revision: str
) -> None:
    write_policy(folder, "default", risk=probes(revision))
    parts.bench.book.reload()
    ads = [{"title": "casino"}, {"title": LONG}, {"title": "casino in a quiet green park"}]
    found = await parts.results("risk", ads=ads)
    assert [r["source"] for r in found] == ["router", "router", "llm"]
    assert [r["verdict"] for r in found[:2]] == ["block", "allow"]
    assert set(found[0]["categories"]) == set(parts.bench.judge.policy.categories)
    assert found[0]["categories"]["gambling"] > 0.95
    assert len(parts.engine.asked) == 10
    partly = {"gambling": {"router": probe(revision)}, "alcohol": {}}
    write_policy(folder, "default", risk=partly)  # a category without a prototype is asked
    parts.bench.book.reload()
    assert (await parts.results("risk", ads=ads[:1]))[0]["source"] == "llm"


async def test_without_the_towers_the_model_is_asked(
    parts: Parts, folder: Path, towers: WordTowers, revision: str
) -> None:
    write_policy(folder, "default", **cosine_router(revision), risk=probes(revision))
    parts.bench.book.reload()
    towers.away = True
    assert (await parts.results("risk", ads=[{"title": "dress"}]))[0]["source"] == "llm"
    body = {"query": "dress", "ads": [{"title": "dress"}]}
    assert (await parts.results("relevance", **body))[0]["source"] == "llm"


async def test_towers_that_hang_hold_nobody_up(
    parts: Parts, folder: Path, towers: WordTowers, revision: str
) -> None:
    assert parts.bench.spreading is not None
    parts.bench.spreading._space._patience = Patience(0.05, 1e6)
    write_policy(folder, "default", risk=probes(revision))
    parts.bench.book.reload()
    towers.gate.clear()
    assert (await parts.results("risk", ads=[{"title": "dress"}]))[0]["source"] == "llm"
    towers.gate.set()
    asked = towers.asked
    assert (await parts.results("risk", ads=[{"title": "scarf"}]))[0]["source"] == "llm"
    assert towers.asked == asked  # they are left alone for a while


async def test_a_near_copy_inherits_and_one_with_a_new_word_does_not(parts: Parts) -> None:
    first, copy = {"title": "grey scarf", "text": LONG}, {"title": "scarf Grey", "text": LONG}
    smuggled = {"title": "grey scarf", "text": f"{LONG} casino"}
    found = [await parts.results("risk", ads=[ad]) for ad in (first, copy, smuggled)]
    assert [r[0]["source"] for r in found] == ["llm", "duplicate", "llm"]
    assert [r[0]["verdict"] for r in found] == ["allow", "allow", "block"]
    assert found[1][0]["categories"] == found[0][0]["categories"]
    again = await parts.results("risk", ads=[copy])
    assert (again[0]["source"], again[0]["verdict"]) == ("cache", "allow")
    asked = len(parts.engine.asked)
    for ad in (first, copy):
        await parts.results("relevance", query="scarf", ads=[ad])
    assert len(parts.engine.asked) == asked + 1


async def test_with_prototypes_a_copy_may_be_reworded_but_not_towards_a_risk(
    parts: Parts, folder: Path, revision: str
) -> None:
    every = probes(revision)
    for part in every.values():
        part["router"] |= {"below": 1e-7, "above": 1 - 1e-7}  # routes nothing, measures still
    write_policy(folder, "default", risk=every, duplicates={"cosine": 0.9, "margin": 4.0})
    parts.bench.book.reload()
    texts = [f"{LONG} {word}" for word in ("scarf", "shawl", "casino")]
    found = [(await parts.results("risk", ads=[{"text": text}]))[0] for text in texts]
    assert [r["source"] for r in found] == ["llm", "duplicate", "llm"]


async def test_a_verdict_near_its_threshold_is_not_inherited(parts: Parts, folder: Path) -> None:
    near = {name: {"thresholds": {"review": 0.5, "block": 0.991}} for name in ("gambling",)}
    write_policy(folder, "default", risk=near, duplicates={"margin": 0.5})
    parts.bench.book.reload()
    for title in ("casino grey scarf", "grey casino scarf"):
        found = (await parts.results("risk", ads=[{"title": title}]))[0]
        assert (found["source"], found["verdict"]) == ("llm", "review")


async def test_a_block_of_one_sends_its_copies_to_review(parts: Parts) -> None:
    store, turn = parts.bench.store, parts.bench.completer.turn
    assert parts.bench.spreading is not None
    await put(parts, 1, "casino scarf", LONG)
    assert (await turn()).paid == 1
    await store.activate("e1-s1")
    assert (await store.lookup([1], deadline=10)).status[0] == Status.BLOCKED
    await put(parts, 2, "scarf casino", LONG)  # a copy that comes after the block
    assert (await turn()).paid == 1
    found = await store.lookup([2], deadline=10)
    assert (found.status[0], found.flags[0]) == (Status.HIT, Flag.DUPLICATE | Flag.REVIEW)
    (said,) = await parts.results("risk", ad_ids=[2])
    assert (said["verdict"], said["source"]) == ("review", "cache")


async def test_a_block_finds_copies_that_were_there_before(parts: Parts) -> None:
    store, turn = parts.bench.store, parts.bench.completer.turn
    spreading = parts.bench.spreading
    assert spreading is not None
    parts.engine.yes_to = "never"
    for ad_id, title in ((1, "grey scarf"), (2, "scarf grey"), (3, "green hose")):
        await put(parts, ad_id, title, LONG if ad_id < 3 else "")
        assert (await turn()).paid == 1
    await store.activate("e1-s1")
    assert (await store.lookup([1, 2, 3], deadline=10)).flags.tolist() == [0, Flag.DUPLICATE, 0]
    (subject,) = await parts.bench.subjects.read([2])
    assert isinstance(subject, Subject)
    assert await spreading.judged(subject, parts.bench.judge.policy, blocked=True) == 1
    assert (await store.lookup([1], deadline=10)).flags[0] == Flag.DUPLICATE | Flag.REVIEW
    await put(parts, 1, "green bucket")  # no copy any more, whatever the index remembers
    assert await spreading.judged(subject, parts.bench.judge.policy, blocked=True) == 0


async def test_the_index_is_filled_from_content_and_follows_other_replicas(
    parts: Parts,
) -> None:
    spreading = parts.bench.spreading
    assert spreading is not None
    for ad_id in range(1, 6):
        await put(parts, ad_id, f"scarf number {ad_id}")
    assert await spreading.fill() == 5
    assert len(spreading.creatives) == 5
    last = await spreading.follow(b"0-0")
    await put(parts, 9, "a hat from elsewhere")
    (subject,) = await parts.bench.subjects.read([9])
    assert isinstance(subject, Subject)
    await spreading.judged(subject, parts.bench.judge.policy, blocked=False)
    assert await spreading.follow(last) != last
    assert len(spreading.creatives) == 6


def creative(words: str) -> Creative:
    subject = Subject(words.encode(), words, "")
    return Creative.of(subject, vector_of(words))


async def test_the_index_is_exact_and_bounded() -> None:
    index = Creatives(most=300)
    several = [creative(f"word{n} scarf") for n in range(400)]
    for one in several:
        index.add(one, "r1")
    assert len(index) == 300
    assert index._rows.shape == (300, D)
    found = await index.near(creative("scarf word399"), 0.99, "r1")
    assert [one.content for one in found] == [b"word399 scarf"]
    assert await index.near(creative("scarf word0"), 0.99, "r1") == []  # the oldest is gone
    rows = np.stack([one.vector for one in several[100:]])
    query = several[250]
    expected = {
        one.content
        for one, c in zip(several[100:], rows @ query.vector, strict=True)
        if c >= 0.6 and one is not query and one.alike(query)
    }
    assert {one.content for one in await index.near(query, 0.6, "r1", 300)} == expected
    assert await index.near(several[399], 0.9, "r2") == []  # other encoders, another space
    index.add(creative("hat"), "r2")
    assert len(index) == 1


def test_words_are_compared_whatever_their_order_and_case() -> None:
    one, other = Subject(b"1", "Red  Dress", "for you"), Subject(b"2", "dress red", "FOR you")
    assert words_of(one) == words_of(other)


async def test_towers_whose_bundle_is_gone_are_away(parts: Parts, towers: WordTowers) -> None:
    assert parts.bench.spreading is not None
    towers.towers.versions["image_encoder"] = "77"  # type: ignore[index]
    with pytest.raises(UnavailableError, match="bundle"):
        await parts.bench.spreading._space.query("hat")
    assert (await parts.results("risk", ads=[{"title": "hat"}]))[0]["source"] == "llm"
