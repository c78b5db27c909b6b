"""What people decide wins, stays, and can be taken back; evidence and policies as routes."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from feature_store import Flag, Status
from tests.serving.cascade_support import WordTowers, vector_of, write_policy
from tests.serving.checks_support import Parts, open_parts


@pytest.fixture
async def parts(
    models: Path, revision: str, tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Parts]:
    write_policy(tmp_path, "default")
    monkeypatch.setenv("TESSERA_REDIS_URL", valkey_url)
    monkeypatch.setenv("TESSERA_MODELS", str(models))
    monkeypatch.setenv("TESSERA_POLICIES", str(tmp_path))
    async with open_parts(models, WordTowers(models)) as opened:
        yield opened


async def put(parts: Parts, ad_id: int, title: str) -> None:
    """As ingest does, and its verdict."""
    await parts.put(ad_id, title, vector=vector_of(title))
    assert (await parts.bench.completer.turn()).paid == 1
    await parts.bench.store.activate("e1-s1")


async def override(parts: Parts, ad_id: int, **body: Any) -> dict[str, Any]:
    answer = await parts.http.put(f"/overrides/{ad_id}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def state(parts: Parts, ad_id: int) -> tuple[Status, Flag]:
    found = await parts.bench.store.lookup([ad_id], deadline=10)
    return Status(int(found.status[0])), Flag(int(found.flags[0]))


async def test_a_person_lifts_a_verdict_and_it_stays_so(parts: Parts) -> None:
    await put(parts, 1, "casino")
    assert (await state(parts, 1))[0] == Status.BLOCKED
    await override(parts, 1, verdict="allow", categories={"gambling": False}, reason="a film")
    assert await state(parts, 1) == (Status.HIT, Flag.HUMAN)
    (said,) = await parts.results("risk", ad_ids=[1])
    assert (said["verdict"], said["source"], said["label_mass"]) == ("allow", "human", 1.0)
    assert said["categories"] == {"gambling": 0.0}
    (same,) = await parts.results("risk", ads=[{"title": "casino"}])  # the same content
    assert (same["verdict"], same["source"]) == ("allow", "human")
    await parts.put(1, "casino tonight", vector=vector_of("casino tonight"))  # sent anew
    assert (await parts.bench.completer.turn()).paid == 1
    assert await state(parts, 1) == (Status.HIT, Flag.HUMAN)
    assert (await parts.results("risk", ad_ids=[1]))[0]["source"] == "human"


async def test_a_persons_block_survives_that_the_ad_is_sent_again(parts: Parts) -> None:
    await put(parts, 1, "scarf")
    done = await override(parts, 1, verdict="block", categories={"weapons": True})
    assert (done["held"], done["replicated"], done["copies"]) == (True, 0, 0)
    assert (await state(parts, 1))[0] == Status.BLOCKED
    await parts.put(1, "scarf again", vector=vector_of("scarf again"))
    assert (await parts.bench.completer.turn()).paid == 1
    assert (await state(parts, 1))[0] == Status.BLOCKED
    await parts.bench.store.unblock([1], source="human")  # what lies under the block
    assert await state(parts, 1) == (Status.HIT, Flag.HUMAN | Flag.WEAPONS)


async def test_a_persons_review_serves_and_is_marked(parts: Parts) -> None:
    await put(parts, 1, "scarf")
    await override(parts, 1, verdict="review")
    assert await state(parts, 1) == (Status.HIT, Flag.HUMAN | Flag.REVIEW)
    await override(parts, 1, verdict="allow")  # the later word holds
    assert await state(parts, 1) == (Status.HIT, Flag.HUMAN)


async def test_what_is_withdrawn_is_judged_anew(parts: Parts) -> None:
    await put(parts, 1, "scarf")
    await override(parts, 1, verdict="block", categories={"weapons": True})
    gone = await parts.http.delete("/overrides/1")
    assert gone.status_code == 200
    assert gone.json()["held"] is False
    assert await state(parts, 1) == (Status.HIT, Flag.PENDING)
    assert (await parts.bench.completer.turn()).paid == 1
    assert await state(parts, 1) == (Status.HIT, Flag(0))
    assert (await parts.http.delete("/overrides/1")).status_code == 404


async def test_a_block_by_a_person_sends_copies_to_review(parts: Parts) -> None:
    await put(parts, 1, "grey scarf")
    await put(parts, 2, "scarf grey")
    assert (await override(parts, 1, verdict="block"))["copies"] == 1
    assert await state(parts, 2) == (Status.HIT, Flag.DUPLICATE | Flag.REVIEW)
    (said,) = await parts.results("risk", ads=[{"title": "Grey scarf"}])  # one that comes later
    assert (said["verdict"], said["source"]) == ("review", "duplicate")


async def test_relevance_is_overridden_for_a_query_and_a_content(parts: Parts) -> None:
    await put(parts, 1, "casino")
    body = {"query": "scarf", "ad_ids": [1]}
    assert (await parts.results("relevance", **body))[0]["label"] == "yes"
    done = await override(parts, 1, query=" SCARF ", relevant=False)
    assert done["replicated"] is None
    (said,) = await parts.results("relevance", **body)
    assert (said["label"], said["score"], said["source"]) == ("no", 0.0, "human")
    other = await parts.results("relevance", query="hat", ad_ids=[1])
    assert other[0]["source"] != "human"
    assert (await parts.http.delete("/overrides/1?query=Scarf")).status_code == 200
    assert (await parts.results("relevance", **body))[0]["source"] == "cache"
    await override(parts, 1, query="scarf", relevant=False)
    await put(parts, 1, "scarf")  # another content
    assert (await parts.results("relevance", **body))[0]["source"] != "human"


async def test_a_person_decides_for_every_policy_and_version(parts: Parts, tmp_path: Path) -> None:
    await put(parts, 1, "casino")
    await override(parts, 1, verdict="allow")
    write_policy(tmp_path, "default", version=2)
    write_policy(tmp_path, "other")
    parts.bench.book.reload()
    for policy in (None, "other"):
        (said,) = await parts.results("risk", ad_ids=[1], policy=policy)
        assert (said["verdict"], said["source"]) == ("allow", "human")


@pytest.mark.parametrize(
    ("ad_id", "body", "status"),
    [
        ("77", {"verdict": "block"}, 404),
        ("0", {"verdict": "block"}, 422),
        ("1", {}, 400),
        ("1", {"verdict": "ban"}, 400),
        ("1", {"verdict": "block", "relevant": True}, 400),
        ("1", {"relevant": True}, 400),
        ("1", {"relevant": True, "query": " \u200b"}, 400),
        ("1", {"verdict": "block", "query": "hat"}, 400),
        ("1", {"verdict": "block", "categories": {"smoking": True}}, 400),
        ("1", {"relevant": True, "query": "hat", "categories": {"weapons": True}}, 400),
    ],
)
async def test_wrong_decisions_are_refused(
    parts: Parts, ad_id: str, body: dict[str, Any], status: int
) -> None:
    await put(parts, 1, "scarf")
    answer = await parts.http.put(f"/overrides/{ad_id}", json=body)
    assert answer.status_code == status, answer.text
    assert (await parts.http.get("/overrides")).json() == {"overrides": [], "complete": True}


async def test_decisions_are_listed_as_examples(parts: Parts) -> None:
    await put(parts, 1, "casino")
    await override(parts, 1, verdict="block", categories={"gambling": True}, reason="yes")
    await override(parts, 1, query="Hats", relevant=False)
    listed = (await parts.http.get("/overrides")).json()["overrides"]
    assert sorted(listed, key=str) == [
        {"ad_id": 1, "labels": {"gambling": True}, "reason": "yes"},
        {"ad_id": 1, "query": "hats", "relevant": False, "reason": ""},
    ]


async def rows(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


async def test_evidence_is_raw_and_stores_nothing(parts: Parts, revision: str) -> None:
    ads = [{"title": "casino"}, {"title": "scarf"}, {"title": ""}]
    answer = await parts.post("evidence", ads=ads)
    risky, plain, none = await rows(answer)
    assert risky["log_odds"]["gambling"] == pytest.approx(np.log(99), abs=0.01)
    assert plain["log_odds"]["gambling"] == pytest.approx(-np.log(99), abs=0.01)
    assert "problem" in none
    vector = np.frombuffer(base64.b64decode(plain["vector"]), "<f2")
    np.testing.assert_allclose(vector, vector_of("scarf"), atol=1e-3)
    assert answer.json()["encoder"] == revision
    (asked,) = await rows(await parts.post("evidence", query="Scarf", ads=ads[1:2]))
    assert set(asked["log_odds"]) == {"relevance"}
    assert asked["cosine"] == pytest.approx(1.0, abs=1e-3)
    assert [key async for key in parts.bench.client.scan_iter(b"ads:j:*")] == []
    assert (await parts.post("evidence", ads=ads, policy="none")).status_code == 404


async def test_policies_are_listed_with_what_is_wrong(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("id: broken\n")
    parts.bench.book.reload()
    found = (await parts.http.get("/policies")).json()
    assert [policy["id"] for policy in found["policies"]] == ["default"]
    assert found["policies"][0]["version"].startswith("default@1-")
    assert found["policies"][0]["routed"] == []
    assert "version" in found["problems"]["broken.yaml"]
