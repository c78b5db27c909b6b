"""A model that is away, full or late: an answer that says so, and a verdict that is made later."""

import asyncio

from ray.exceptions import RayActorError

from serving.checks.completing import Turn
from tests.serving.checks_support import Parts, until


async def test_without_the_model_risk_is_reviewed_and_said(parts: Parts) -> None:
    stored = await parts.results("risk", ads=[{"title": "dress"}])
    parts.engine.away = RayActorError()
    for _ in range(2):
        answer = (await parts.post("risk", ads=[{"title": "dress"}, {"title": "hat"}])).json()
        assert answer["results"][0] == stored[0] | {"source": "cache"}
        away = answer["results"][1]
        assert (away["verdict"], away["source"], away["categories"]) == ("review", "router", {})
        assert [d["what"] for d in answer["degraded"]] == ["llm"]
    calls = parts.engine.calls
    await parts.post("risk", ads=[{"title": "hat"}])
    assert parts.engine.calls == calls  # the circuit is open: nobody waits for it
    assert (await parts.http.get("/readyz")).status_code == 503
    parts.engine.away = None
    await until(lambda: parts.bench.engine._away is None)
    found = await parts.results("risk", ads=[{"title": "hat"}])
    assert (found[0]["verdict"], found[0]["source"]) == ("allow", "llm")  # nothing was stored


async def test_without_the_model_and_a_router_relevance_is_a_problem(parts: Parts) -> None:
    parts.engine.away = RayActorError()
    answer = (await parts.post("relevance", query="x", ads=[{"title": "hat"}])).json()
    assert answer["results"][0]["problem"]["type"].endswith("unavailable")
    assert [d["what"] for d in answer["degraded"]] == ["llm"]


async def test_what_was_asked_in_vain_is_owed_and_filled_in(parts: Parts) -> None:
    await parts.put(1, "casino")
    assert await parts.bench.completer.turn() == Turn(1, 1)
    await parts.put(2, "casino night")
    assert await parts.bench.completer.turn() == Turn(1, 1)
    parts.engine.away = RayActorError()
    body = {"query": "Casino", "ad_ids": [1, 2, 3]}
    answer = (await parts.post("relevance", **body)).json()
    assert ["problem" in row for row in answer["results"]] == [True] * 3
    owed = (await parts.http.get("/owed")).json()
    assert (owed["owed"], owed["taken"], owed["dead_letters"]) == (2, 0, [])  # there is no ad 3
    parts.engine.away = None
    await until(lambda: parts.bench.engine._away is None)
    assert await parts.bench.completer.turn() == Turn(2, 2)
    found = await parts.results("relevance", **body)
    assert [row.get("source") for row in found] == ["cache", "cache", None]


async def test_a_risk_that_was_asked_in_vain_reaches_the_record(parts: Parts) -> None:
    await parts.put(1, "dress")
    parts.engine.away = RayActorError()
    answer = (await parts.post("risk", ad_ids=[1])).json()
    assert (answer["results"][0]["verdict"], bool(answer["degraded"])) == ("review", True)
    assert await parts.bench.owed.count() == 1  # once, though ingest owes it too
    await asyncio.gather(*(parts.post("risk", ad_ids=[1]) for _ in range(5)))
    assert await parts.bench.owed.count() == 1


async def test_dead_letters_are_listed_and_revived(parts: Parts) -> None:
    await parts.put(1, "casino")
    (debt,) = await parts.bench.owed.take(1)
    await parts.bench.owed.bury(debt, "no sense in it")
    owed = (await parts.http.get("/owed", params={"count": 5})).json()
    assert (owed["owed"], owed["dead"]) == (0, 1)
    assert [(d["ad_id"], d["reason"]) for d in owed["dead_letters"]] == [(1, "no sense in it")]
    assert (await parts.http.get("/owed", params={"count": 0})).status_code == 400
    assert (await parts.http.post("/owed/revive")).json() == {"revived": 1}
    assert await parts.bench.completer.turn() == Turn(1, 1)
