"""A check answers when it must: late ones say so and are owed, and the lag is told."""

import asyncio
from typing import Any

import pytest

from serving.checks.completing import Turn
from serving.checks.understander import Eyes
from tests.serving.checks_support import Parts


@pytest.mark.parametrize(
    ("body", "headers"),
    [({"deadline_ms": 30}, {}), ({}, {"x-request-timeout-seconds": "0.03"})],
    ids=["body", "header"],
)
async def test_late_relevance_is_a_problem_and_owed_for_stored_ads(
    parts: Parts, body: dict[str, Any], headers: dict[str, str]
) -> None:
    await parts.put(1, "red dress")
    assert await parts.bench.completer.turn() == Turn(1, 1)
    parts.engine.gate.clear()
    for ads in ({"ad_ids": [1]}, {"ads": [{"title": "hat"}]}):
        asked = {"query": "dress", **ads, **body}
        answer = (await parts.http.post("/relevance", json=asked, headers=headers)).json()
        (row,) = answer["results"]
        assert row["problem"]["type"].endswith("deadline-exceeded")
        assert [note["what"] for note in answer["degraded"]] == ["deadline"]
    assert await parts.bench.owed.count() == 1  # of the ad that is stored
    parts.engine.gate.set()
    assert await parts.bench.completer.turn() == Turn(1, 1)
    (found,) = await parts.results("relevance", query="dress", ad_ids=[1])
    assert found["source"] == "cache"


async def test_a_caption_answers_when_it_must(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def soft(_self: Eyes, _subject: object) -> list[float]:
        return []

    monkeypatch.setattr(Eyes, "soft", soft)
    await parts.put(1, "red dress")

    async def slow(*_: object) -> tuple[int, ...]:
        await parts.engine.gate.wait()
        return (5, 6)

    monkeypatch.setattr(parts.engine.generate, "remote", slow)
    parts.engine.gate.clear()
    late = await parts.post("caption", ad_id=1, deadline_ms=30)
    assert late.status_code == 504
    assert late.json()["type"].endswith("deadline-exceeded")
    parts.engine.gate.set()
    async with asyncio.timeout(30):
        while (await parts.post("caption", ad_id=1)).json()["source"] != "cache":
            await asyncio.sleep(0.01)


async def test_how_far_behind_the_workers_are_is_told(parts: Parts) -> None:
    metrics = parts.bench.completer._owing
    for ad_id in (1, 2, 3):
        await parts.put(ad_id, f"hat {ad_id}")
    (debt,) = await parts.bench.owed.take(1)
    await parts.bench.owed.bury(debt, "no sense in it")
    await parts.bench.owed.take(1)
    await asyncio.sleep(0.002)  # ages are in milliseconds
    await parts.bench.completer._tell()
    told = {dict(tags)["state"]: values for tags, values in metrics.values.items()}  # type: ignore[attr-defined]
    assert told == {"waiting": [1], "taken": [1], "dead": [1]}
    ((oldest,),) = parts.bench.completer._oldest.values.values()  # type: ignore[attr-defined]
    assert 0 < oldest < 60
