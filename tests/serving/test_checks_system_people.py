"""People and policies on a running system: real towers, real engine, real keys."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.__main__ import main
from serving.checks.policy_file import parse
from tests.serving.support import System
from tests.serving.test_checks_system import flags_of, judged, put, until

GAMES = ("poker night", "free spins", "our casino", "bet now", "roulette table", "big jackpot")
PLAIN = ("wool scarf", "red dress", "table lamp", "garden hose", "blue shoes", "silk shirt")


def test_a_person_wins_and_it_can_be_taken_back(system: System, fresh_ids: range) -> None:
    ad_id = fresh_ids[0]
    with system.client() as client:
        put(client, ad_id, "a green dress")
        until(lambda: judged(client, ad_id))
        path, body = f"/v1/checks/overrides/{ad_id}", {"verdict": "block", "reason": "a complaint"}
        with system.client("write") as other:
            assert other.put(path, json=body).status_code == 403
        assert client.put(path, json=body).status_code == 200
        assert flags_of(client, ad_id)[0] == "BLOCKED"
        assert risk(client, ad_id)["source"] == "human"
        put(client, ad_id, "a green dress, again")
        assert risk(client, ad_id)["verdict"] == "block"
        assert client.put(path, json={"verdict": "review"}).status_code == 200
        until(lambda: flags_of(client, ad_id) == ("HIT", ["REVIEW", "HUMAN"]))
        assert client.delete(path).status_code == 200
        until(lambda: judged(client, ad_id))
        assert risk(client, ad_id)["source"] != "human"
        assert "HUMAN" not in flags_of(client, ad_id)[1]


def risk(client: httpx.Client, ad_id: int) -> dict[str, Any]:
    body = {"ad_ids": [ad_id], "deadline_ms": 30_000}
    found: dict[str, Any] = client.post("/v1/checks/risk", json=body).json()["results"][0]
    return found


def test_a_near_copy_of_a_stored_ad_inherits(system: System, fresh_ids: range) -> None:
    words = "warm wool for cold days, free returns for thirty days, made in small numbers"
    text = f"{words} {fresh_ids[0]}"
    with system.client() as client:
        ads = [{"title": title, "text": text} for title in ("grey wool scarf", "scarf grey wool")]
        body = {"deadline_ms": 60_000}
        first = client.post("/v1/checks/risk", json=body | {"ads": ads[:1]}).json()["results"][0]
        copy = client.post("/v1/checks/risk", json=body | {"ads": ads[1:]}).json()["results"][0]
        assert first["source"] == "llm"
        # A verdict that is near one of its thresholds is not inherited.
        assert copy["source"] in ("duplicate", "llm")
        if copy["source"] == "duplicate":
            assert copy["categories"] == first["categories"]


def test_a_policy_is_onboarded_from_the_running_service(
    system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, file = tmp_path / "key", tmp_path / "labelled.jsonl"
    key.write_text(system.keys["all"])
    lines = [{"title": t, "labels": {"gambling": t in GAMES}} for t in (*GAMES, *PLAIN)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ask = ["checks", "onboard", "games", "--examples", str(file), "--url", system.http]
    ask += ["--key-file", str(key), "--policies", str(tmp_path), "--without-decisions"]
    assert main(ask) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    (question,) = said["questions"]
    assert (question["question"], question["labels"], question["positive"]) == ("gambling", 12, 6)
    assert 0 <= question["model_ece"] <= 1
    found = parse((tmp_path / "games.yaml").read_bytes(), "games.yaml")
    assert found.risk is not None
    router = found.risk["gambling"].router
    assert router is not None
    assert router.vector.shape == (384,)
    assert len(router.encoder) == 12
