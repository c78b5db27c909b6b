"""What the judge stores and refuses: the right key, the right picture, and no more than it can."""

import asyncio
from typing import Any

import pytest

from feature_store import Flag, Status
from serving.checks.completing import Turn
from serving.checks.flights import Reader
from serving.checks.subjects import Subject
from serving.checks.verdicts import Risk
from serving.errors import UnavailableError
from tests.serving.checks_support import Parts, until


async def test_a_verdict_whose_scope_changes_is_made_anew_and_stored_where_it_belongs(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder that serves is found out by looking: the first ask knows it too late."""
    judge, sight = parts.bench.judge, parts.bench.sight
    monkeypatch.setattr(sight, "blind", None)
    seeing = judge._scope()
    make = judge._makes.risk

    async def finds_out(subject: Subject, priority: int) -> Risk:
        sight.blind = "another encoder serves"
        return await make(subject, priority)

    monkeypatch.setattr(judge._makes, "risk", finds_out)
    found = await parts.results("risk", ads=[{"title": "casino"}])
    assert (found[0]["verdict"], found[0]["source"]) == ("block", "llm")
    blind = judge._scope()
    assert blind != seeing
    async with asyncio.timeout(10):
        keys = [key async for key in parts.bench.client.scan_iter(b"ads:j:risk:*")]
    assert [blind.model_version.encode() in key for key in keys] == [True]


async def test_a_picture_is_never_that_of_later_content(parts: Parts) -> None:
    await parts.put(1, "casino", picture=b"first")
    (subject,) = await parts.bench.subjects.read([1])
    assert isinstance(subject, Subject)
    assert await parts.bench.subjects.picture(subject) == b"first"
    await parts.put(1, "casino", picture=b"second")
    with pytest.raises(UnavailableError, match="has changed"):
        await parts.bench.subjects.picture(subject)


async def test_flags_of_a_human_outlive_verdicts(parts: Parts) -> None:
    store = parts.bench.store
    await parts.put(1, "casino")
    await store.activate("e1-s1")
    await store.update_flags([1], int(Flag.HUMAN), int(Flag.PENDING))
    assert await parts.bench.completer.turn() == Turn(1, 1)
    found = await store.lookup([1], deadline=10)
    assert (found.status[0], found.flags[0]) == (Status.HIT, Flag.HUMAN)
    assert await parts.bench.owed.count() == 0


async def test_more_asks_than_may_wait_are_refused_and_say_when_to_come_back(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reader, "WAITING", 20)
    monkeypatch.setattr(Reader, "CALLS", 1)
    monkeypatch.setattr(Reader, "ASKS", 10)
    parts.engine.gate.clear()

    def ask(title: str) -> asyncio.Task[list[dict[str, Any]]]:  # ten asks
        return asyncio.create_task(parts.results("risk", ads=[{"title": title}]))

    held = [ask("casino")]
    await until(lambda: len(parts.engine.asked) == 10)
    held += [ask("casino 1"), ask("casino 2")]
    await until(lambda: sum(len(r._waiting) for r in parts.readers) == 20)
    answer = await parts.post("relevance", query="hats", ads=[{"title": "one more"}])
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    mixed = (await parts.post("risk", ads=[{"title": "and more"}, {"title": ""}])).json()
    assert mixed["results"][0]["verdict"] == "review"
    assert "problem" in mixed["results"][1]
    assert [d["what"] for d in mixed["degraded"]] == ["llm"]
    parts.engine.gate.set()
    found = await asyncio.gather(*held)
    assert [rows[0]["verdict"] for rows in found] == ["block"] * 3
