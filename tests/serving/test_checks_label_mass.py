"""Reads that hardly were an answer are flagged on every way that leads to a caller or a record."""

from typing import Any

from feature_store import Flag, Status
from serving.checks.policy import LOW_LABEL_MASS
from tests.serving.cascade_support import vector_of
from tests.serving.checks_support import Parts

WORDS = "warm wool for cold days in all sizes with free returns for thirty days made in small runs"


async def flagged(parts: Parts, route: str, source: str, **body: Any) -> dict[str, Any]:
    """The one row of an answer that says so; `source`: where it must come from."""
    answer = (await parts.post(route, **body)).json()
    (row,) = answer["results"]
    assert (row["source"], row["label_mass"] < LOW_LABEL_MASS) == (source, True)
    assert [note["what"] for note in answer["degraded"]] == ["label_mass"]
    return row  # type: ignore[no-any-return]


async def test_wherever_a_verdict_comes_from(routed: Parts) -> None:
    routed.engine.mass = 0.4
    first, copy = {"title": "grey scarf", "text": WORDS}, {"title": "scarf grey", "text": WORDS}
    for source, ad in (("llm", first), ("cache", first), ("duplicate", copy), ("cache", copy)):
        row = await flagged(routed, "risk", source, ads=[ad])
        assert row["verdict"] == "review"
    for source in ("llm", "cache"):
        await flagged(routed, "relevance", source, ads=[first], query="red dress")


async def test_in_an_answer_with_others(routed: Parts) -> None:
    sure, unsure = {"title": "hat"}, {"title": "a lamp for the garden"}
    assert (await routed.post("risk", ads=[sure])).json()["degraded"] is None
    routed.engine.mass = 0.1
    answer = (await routed.post("risk", ads=[sure, unsure])).json()
    assert [row["verdict"] for row in answer["results"]] == ["allow", "review"]
    (note,) = answer["degraded"]
    assert note["what"] == "label_mass"
    assert note["reason"].startswith("1 answers")


async def test_in_the_record_of_an_ad(routed: Parts) -> None:
    routed.engine.mass = 0.1
    await routed.put(1, "scarf", vector=vector_of("scarf"))
    assert (await routed.bench.completer.turn()).paid == 1
    await routed.bench.store.activate("e1-s1")
    found = await routed.bench.store.lookup([1], deadline=10)
    assert (found.status[0], found.flags[0]) == (Status.HIT, Flag.REVIEW)
