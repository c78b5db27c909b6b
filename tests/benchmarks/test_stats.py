"""The statistics see what is there, and nothing that is not."""

import asyncio

import numpy as np
import pytest

from benchmarks import stats
from benchmarks.errors import InvalidRunError
from benchmarks.load import open_loop


def test_subjects_take_turns_forward_and_backward() -> None:
    order: list[str] = []

    def subject(name: str) -> object:
        def run(round_: int) -> float:
            order.append(f"{name}{round_}")
            return 1.0

        return run

    taken = stats.abba({"a": subject("a"), "b": subject("b")}, 2)  # type: ignore[dict-item]
    assert order == ["a0", "b0", "b1", "a1", "b2", "a2", "a3", "b3"]
    assert taken["a"].shape == (4,)


def test_an_injected_slowdown_is_found_and_none_is_invented() -> None:
    random = np.random.default_rng(7)
    base = random.lognormal(0, 0.2, 2000)
    slower = stats.ratio(random.lognormal(0, 0.2, 2000) * 1.2, base)
    same = stats.ratio(random.lognormal(0, 0.2, 2000), base)
    assert slower.low > 1.05
    assert slower.at_most(1.05) == "not met"
    assert same.low < 1 < same.high
    assert same.at_most(0.5) == "not met"
    assert same.at_most(1.5) == "met"
    assert same.at_most(same.value) == "inconclusive"
    assert stats.control_holds(same)
    assert not stats.control_holds(slower)


def test_what_is_above_the_parts_is_found() -> None:
    random = np.random.default_rng(3)
    parts = [random.lognormal(0, 0.1, 1000), random.lognormal(0.5, 0.1, 1000)]
    whole = random.lognormal(0, 0.1, 1000) + random.lognormal(0.5, 0.1, 1000) + 0.4
    above = stats.excess(whole, parts)
    assert above.low < 0.42
    assert above.high > 0.38
    assert above.at_most(1.0) == "met"
    assert above.at_least(0.1) == "met"
    assert above.at_least(1.0) == "not met"
    assert above.judged(0.1)["verdict"] == "not met"
    middle = stats.quantile(parts[0], 0.5)
    assert middle.low < 1 < middle.high


def test_a_p99_needs_twenty_thousand() -> None:
    assert set(stats.percentiles(np.ones(19_999))) == {"p50", "p90"}
    assert set(stats.percentiles(np.ones(20_000))) == {"p50", "p90", "p99"}


async def test_a_stall_counts_for_every_request_that_it_held_up() -> None:
    lock = asyncio.Lock()

    async def request(number: int) -> str:
        async with lock:
            await asyncio.sleep(0.3 if number == 10 else 0)
        return "ok" if number % 2 else "odd"

    result = await open_loop(request, rate=200, seconds=0.5, most_lag_ms=1000)
    assert result.sent == 100
    assert result.outcomes == {"ok": 50, "odd": 50}
    assert result.percentile_ms(75) > 50  # dozens of requests waited behind one
    assert "p99_ms" not in result.summary()


async def test_a_generator_that_lags_makes_no_figures() -> None:
    import time

    async def request(_: int) -> str:
        time.sleep(0.02)
        return "ok"

    with pytest.raises(InvalidRunError, match="late"):
        await open_loop(request, rate=500, seconds=0.2, most_lag_ms=20)
