"""Policies with texts of their own are in the engine's cache before anybody asks."""

import asyncio
from pathlib import Path

import pytest

from serving.checks.policy import DEFAULT
from serving.errors import UnavailableError
from tests.serving.cascade_support import write_policy
from tests.serving.checks_support import Parts, until

TEXT = "Raffles and bingo are gambling.\n"


async def test_what_a_policy_adds_is_read_once_before_the_service_is_ready(
    routed: Parts, folder: Path
) -> None:
    assert routed.bench.warming.cold() == []  # the model's own prompts are the engine's business
    write_policy(folder, "games", text=TEXT)
    routed.bench.book.reload()
    assert [policy.name for policy in routed.bench.warming.cold()] == ["games"]
    assert (await routed.http.get("/readyz")).status_code == 200
    policy = routed.bench.book.find("games")
    assert len(routed.engine.asked) == 1 + len(policy.categories)
    read = routed.engine.renderer.decode(list(routed.engine.asked[0].ids))
    assert "Raffles and bingo" in read
    assert routed.bench.warming.cold() == []
    assert (await routed.http.get("/readyz")).status_code == 200
    assert len(routed.engine.asked) == 1 + len(policy.categories)


async def test_a_policy_that_comes_later_is_warmed_and_again_after_the_engine_was_away(
    routed: Parts, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.checks.warming.POLL_S", 0.01)
    away = False

    def check() -> None:
        if away:
            raise UnavailableError("away")

    warming = routed.bench.warming
    task = asyncio.create_task(warming.run(check))
    try:
        write_policy(folder, "games", text=TEXT)
        routed.bench.book.reload()
        await until(lambda: not warming.cold())
        asked = len(routed.engine.asked)
        assert asked == 1 + len(routed.bench.book.find(DEFAULT).categories)
        away = True
        await until(lambda: bool(warming.cold()))
        away = False
        await until(lambda: not warming.cold())
        assert len(routed.engine.asked) == 2 * asked
    finally:
        task.cancel()
