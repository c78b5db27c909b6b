"""Ads in: PUT, batch, takedown and end, and what lookups say after each."""

import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.serving.support import BAD, GOOD, System, picture


def status_of(system: System, *ids: int) -> list[str]:
    with system.client("read") as client:
        found: list[str] = client.post(
            "/v1/lookup", json={"ad_ids": ids, "deadline_ms": 1000}
        ).json()["status"]
    return found


def put(system: System, ad_id: object, **parts: Any) -> httpx.Response:
    with system.client("write") as client:
        return client.put(f"/v1/ads/{ad_id}", files=parts)


def test_up_says_what_it_did(system: System) -> None:
    report = system.report
    assert report["stages"]["ingest"]["count"] == GOOD
    assert report["stages"]["lookup"]["count"] == GOOD
    for stage in report["stages"].values():
        assert set(stage) >= {"count", "seconds", "p50_ms", "p99_ms"}
        assert stage["p99_ms"] >= stage["p50_ms"] > 0
    assert set(report["versions"]) >= {"active", "image_encoder", "text_encoder", "semantic_id"}
    refused = {problem["source"] for problem in report["problems"]}
    assert refused == {"circle/text.jpg", "square/torn.jpg"}
    assert len(refused) == BAD


def test_an_ad_that_is_put_is_found_with_the_codes_of_the_answer(
    system: System, fresh_ids: range
) -> None:
    ad_id = fresh_ids[0]
    answer = put(system, ad_id, image=("a.jpg", picture(1)), title=(None, "red shoes"))
    assert answer.status_code == 200
    stored = answer.json()
    assert set(stored) == {"ad_id", "version", "codes", "margin", "flags", "risk"}
    assert (stored["ad_id"], stored["flags"]) == (ad_id, ["PENDING"])
    assert stored["risk"] == {"verdict": None, "categories": {}}
    assert len(stored["codes"]) == len(stored["margin"]) == 6
    with system.client("read") as client:
        found = client.post("/v1/lookup", json={"ad_ids": [ad_id], "deadline_ms": 5000}).json()
    assert found["codes"] == [stored["codes"]]
    assert found["status"] == ["HIT"]
    again = put(system, ad_id, image=("a.jpg", picture(1)), title=(None, "red shoes")).json()
    assert again["codes"] == stored["codes"]


@pytest.mark.parametrize("parts", [{"title": (None, "red shoes")}, {"image": ("x", picture(3))}])
def test_one_modality_is_enough(system: System, fresh_ids: range, parts: dict[str, Any]) -> None:
    assert put(system, fresh_ids[0], **parts).status_code == 200
    assert status_of(system, fresh_ids[0]) == ["HIT"]


def huge_png() -> bytes:
    """A 30,000 x 30,000 px PNG of a few hundred kilobytes."""
    out = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(out, "PNG")
    return out.getvalue()


def test_a_bad_image_is_refused_and_what_is_stored_stays(system: System, fresh_ids: range) -> None:
    ad_id = fresh_ids[0]
    kept = put(system, ad_id, image=("a.jpg", picture(7))).json()["codes"]
    for image in (b"I am no picture", picture(7)[:300], b"", huge_png()):
        answer = put(system, ad_id, image=("a.jpg", image))
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:tessera:problem:invalid-image"
    with system.client("read") as client:
        assert client.post("/v1/lookup", json={"ad_ids": [ad_id], "deadline_ms": 5000}).json()[
            "codes"
        ] == [kept]


@pytest.mark.parametrize("ad_id", ["0", "-1", "x", str(2**63), "1.5"])
def test_a_wrong_id_is_refused(system: System, ad_id: str) -> None:
    answer = put(system, ad_id, title=(None, "x"))
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:tessera:problem:invalid-ad-ids"


def test_wrong_forms_are_refused(system: System, fresh_ids: range) -> None:
    path = f"/v1/ads/{fresh_ids[0]}"
    nothing = put(system, fresh_ids[0], title=(None, "  "))
    assert (nothing.status_code, nothing.json()["type"].split(":")[-1]) == (422, "invalid-content")
    long = put(system, fresh_ids[0], title=(None, "x" * 1001))
    assert long.status_code == 422
    with system.client("write") as client:
        assert client.put(path, json={"title": "x"}).status_code == 415
        form = {"content-type": "multipart/form-data; boundary=b"}
        assert client.put(path, content=b"--b\r\nbroken", headers=form).status_code in (400, 422)
        no_boundary = {"content-type": "multipart/form-data"}
        assert client.put(path, content=b"x", headers=no_boundary).status_code == 400
        image_as_text = client.put(path, data={"image": "x"}, files={"title": (None, "x")})
        assert image_as_text.status_code == 400
        for parts in (
            [("picture", ("p.jpg", picture(1))), ("title", (None, "x"))],
            [("title", (None, "x")), ("title", (None, "y"))],
        ):  # what nobody would read, or one of two
            assert client.put(path, files=parts).status_code == 400
    assert status_of(system, fresh_ids[0]) == ["MISS"]


def test_a_body_over_the_limit_is_refused(system: System, fresh_ids: range) -> None:
    answer = put(system, fresh_ids[0], image=("a.jpg", bytes((128 << 20) + 1)))
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:tessera:problem:body-too-large"
    with system.client("read") as client:
        large = client.post("/v1/lookup", content=b" " * ((4 << 20) + 1))
    assert large.status_code == 413
    assert put(system, fresh_ids[0], title=(None, "small")).status_code == 200


def send_batch(system: System, lines: list[Any], images: dict[str, bytes]) -> httpx.Response:
    manifest = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    files = {"manifest": ("manifest.jsonl", manifest.encode())}
    files |= {name: (name, data) for name, data in images.items()}
    with system.client("write") as client:
        return client.post("/v1/ads/batch", files=files)


def test_a_batch_answers_line_by_line(system: System, fresh_ids: range) -> None:
    a, b, c, d, e = fresh_ids[:5]
    lines: list[Any] = [
        {"ad_id": a, "image": "one", "title": "shoes"},
        {"ad_id": b, "image": "bad", "title": "torn"},
        {"ad_id": str(c), "text": "only words"},
        "{",
        {"ad_id": 0, "title": "x"},
        {"ad_id": d, "image": "missing"},
        {"ad_id": a, "title": "again"},
        {"ad_id": e},
        {"ad_id": e, "colour": "red"},
    ]
    answer = send_batch(system, lines, {"one": picture(1), "bad": b"no picture"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert len(found) == len(lines)
    assert [f.get("line") for f in found] == [None, 2, None, 4, 5, 6, 7, 8, 9]
    assert [f["ad_id"] for f in found] == [a, b, c, None, None, d, a, e, None]
    assert found[0]["codes"]
    assert found[1]["problem"]["type"].endswith("invalid-image")
    assert status_of(system, a, b, c, d, e) == ["HIT", "MISS", "HIT", "MISS", "MISS"]


def test_a_batch_as_a_whole_can_be_wrong(system: System) -> None:
    assert send_batch(system, [], {}).status_code == 400
    too_many = [{"ad_id": i, "title": "x"} for i in range(1, 1002)]
    assert send_batch(system, too_many, {}).status_code == 400
    with system.client("write") as client:
        assert client.post("/v1/ads/batch", files={"other": ("x", b"x")}).status_code == 400
        twice = [("manifest", ("m", b'{"ad_id": 1, "title": "x"}'))] * 2
        assert client.post("/v1/ads/batch", files=twice).status_code == 400
        assert client.post("/v1/ads/batch", json={}).status_code == 415


def test_a_larger_batch_is_stored_whole(system: System, fresh_ids: range) -> None:
    ids = fresh_ids[:100]
    lines = [{"ad_id": i, "image": f"i{i}", "title": "x"} for i in ids]
    answer = send_batch(system, lines, {f"i{i}": picture(i) for i in ids})
    assert [json.loads(x)["ad_id"] for x in answer.text.splitlines()] == list(ids)
    assert status_of(system, *ids) == ["HIT"] * 100


def test_takedown_and_return(system: System, fresh_ids: range) -> None:
    ad_id = fresh_ids[0]
    put(system, ad_id, title=(None, "shoes"))
    with system.client("admin") as client:
        blocked = client.post(f"/v1/ads/{ad_id}/block", json={"reason": "complaint"})
        assert blocked.status_code == 200
        assert blocked.json() == {"ad_id": ad_id, "blocked": True, "replicated": 0}
        assert status_of(system, ad_id) == ["BLOCKED"]
        put(system, ad_id, title=(None, "other shoes"))
        assert status_of(system, ad_id) == ["BLOCKED"]
        lifted = client.post(f"/v1/ads/{ad_id}/unblock", json={"reason": "a mistake"})
        assert lifted.json()["blocked"] is False
    assert status_of(system, ad_id) == ["HIT"]


def test_unknown_ads_can_be_blocked(system: System, fresh_ids: range) -> None:
    with system.client("admin") as client:
        assert client.post(f"/v1/ads/{fresh_ids[0]}/block", json={"reason": "x"}).status_code == 200
        assert status_of(system, fresh_ids[0]) == ["BLOCKED"]
        assert client.post("/v1/ads/x/block", json={"reason": "x"}).status_code == 422
        assert client.post(f"/v1/ads/{fresh_ids[1]}/block", json={"why": 1}).status_code == 400


def test_an_ad_that_ends_is_gone_but_a_humans_mark_is_not(system: System, fresh_ids: range) -> None:
    ended, marked = fresh_ids[:2]
    with system.client("all") as client:
        for ad_id in (ended, marked):
            put(system, ad_id, title=(None, "shoes"))
        client.post(f"/v1/ads/{marked}/block", json={"reason": "x"})
        for ad_id in (ended, marked):
            answer = client.delete(f"/v1/ads/{ad_id}")
            assert (answer.status_code, answer.json()["status"]) == (200, "MISS")
        assert status_of(system, ended, marked) == ["MISS", "MISS"]
        put(system, marked, title=(None, "back again"))
        assert status_of(system, marked) == ["BLOCKED"]
        assert client.delete(f"/v1/ads/{fresh_ids[5]}").status_code == 200
