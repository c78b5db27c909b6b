"""Captions as events: parts that add up, an end that is stored, and readers that go away."""

import asyncio
from typing import Any

import orjson
import pytest

from serving.checks.captions import events
from serving.checks.subjects import Subject
from serving.checks.understander import Eyes
from serving.deadline import Deadline
from serving.errors import DeadlineExceededError, InvalidContentError, UnavailableError
from tests.serving.checks_support import Parts, until

AD = Subject(b"c" * 32, "a red dress", "with müsli \N{DRESS}")


@pytest.fixture
def sees(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """The model sees an image, of which the prompt of a bundle for words alone says nothing."""

    async def soft(_self: Eyes, _subject: Subject) -> list[float]:
        return []

    monkeypatch.setattr(Eyes, "soft", soft)
    return parts


def parsed(event: bytes) -> tuple[str, dict[str, Any]]:
    name, data, *rest = event.decode().split("\n")
    assert rest == ["", ""]
    return name.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))


async def test_parts_add_up_and_the_whole_is_stored(sees: Parts) -> None:
    judge = sees.bench.judge
    found = [parsed(event) async for event in events(judge, AD, Deadline.after(30))]
    texts = [data["text"] for name, data in found if name == "text"]
    assert len(texts) > 3
    assert found[-1] == ("caption", {"caption": "".join(texts), "source": "llm"})
    again = [parsed(event) async for event in events(judge, AD, Deadline.after(30))]
    assert again == [
        ("text", {"text": "".join(texts)}),
        ("caption", {"caption": "".join(texts), "source": "cache"}),
    ]
    assert (await judge.caption(AD, Deadline.after(30))).source == "cache"
    assert len(sees.engine.streams) == 1


async def test_a_reader_that_goes_away_ends_the_writing(sees: Parts) -> None:
    reading = events(sees.bench.judge, AD, Deadline.after(30))
    await anext(reading)
    await reading.aclose()
    assert sees.engine.streams[0].cancelled
    found = [parsed(event) async for event in events(sees.bench.judge, AD, Deadline.after(30))]
    assert found[-1][1]["source"] == "llm"  # nothing half was stored
    assert not sees.engine.streams[1].cancelled


async def test_what_fails_before_the_first_part_is_a_problem_and_after_it_an_event(
    sees: Parts,
) -> None:
    sees.engine.gate.clear()
    with pytest.raises(DeadlineExceededError):
        await anext(events(sees.bench.judge, AD, Deadline.after(0.05)))
    await until(lambda: sees.engine.streams[0].cancelled)
    sees.engine.gate.set()
    reading = events(sees.bench.judge, AD, Deadline.after(30))
    await anext(reading)
    sees.engine.away = UnavailableError("gone")
    *_, last = [parsed(event) async for event in reading]
    assert last[0] == "problem"
    assert last[1]["type"].endswith("unavailable")


async def test_events_are_what_is_asked_for(parts: Parts, sees: Parts) -> None:
    await parts.put(1, "a red dress")
    headers = {"accept": "text/event-stream"}
    answer = await parts.http.post("/caption", json={"ad_id": 1}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    *_, last, end = answer.text.split("\n\n")
    assert end == ""
    assert (
        parsed(last.encode() + b"\n\n")[1] | {"source": "cache"}
        == (await parts.http.post("/caption", json={"ad_id": 1})).json()
    )
    missing = await parts.http.post("/caption", json={"ad_id": 2}, headers=headers)
    assert missing.status_code == 404


async def test_without_an_image_there_is_nothing_to_describe(parts: Parts) -> None:
    with pytest.raises(InvalidContentError):
        await anext(events(parts.bench.judge, AD, Deadline.after(30)))
    await asyncio.sleep(0)
    assert not parts.engine.streams
