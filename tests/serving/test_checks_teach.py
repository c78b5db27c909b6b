"""`checks teach`: ads without labels in, a router that says what the model would out."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from serving.__main__ import main
from serving.checks.onboarding import network_fit, teach
from serving.checks.onboarding.distilling import PARTS
from serving.checks.policy_file import parse
from serving.errors import ConfigurationError, MainJobError
from tests.serving.cascade_support import write_policy
from tests.serving.checks_support import Parts
from tests.serving.onboarding_support import service

WORDS = ("wool", "silk", "hat", "lamp", "chair", "green", "warm", "new", "small", "scarf", "you")


def write_ads(path: Path, count: int, risky: float) -> Path:
    """Ads of six harmless words, a share of them with the one that the model flags."""
    draw = np.random.default_rng(3)
    lines = []
    for _ in range(count):
        words = [str(word) for word in draw.choice(WORDS, 6)]
        words += ["casino"] if draw.random() < risky else []
        lines.append(json.dumps({"title": " ".join(words)}) + "\n")
    path.write_text("".join(lines))
    return path


async def test_a_router_is_taught_by_what_the_model_says(
    routed: Parts,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(network_fit, "EPOCHS", 120)  # of 15 times fewer ads than it is made for
    kept = {"scale": 1.0, "bias": 0.0, "bends": [[-4.0, -0.5], [4.0, 0.5]]}
    part = {"gambling": {"calibration": kept}}
    write_policy(folder, "games", version=3, text="Be strict. ", risk=part)
    routed.bench.book.reload()
    ads = write_ads(tmp_path / "ads.jsonl", 800, 0.25)
    file, worth = await asyncio.to_thread(teach.teach, service(routed), "games", ads, folder)
    assert "teaching games: done" in capsys.readouterr().err
    assert (file.version, file.text) == (4, "Be strict. ")
    assert parse((folder / "games.yaml").read_bytes(), "games.yaml") == file
    assert file.risk is not None
    calibration = file.risk["gambling"].calibration
    assert calibration is not None
    assert calibration.bends == ((-4.0, -0.5), (4.0, 0.5))
    assert worth.ads == 800 // PARTS
    assert 0 < worth.flagged["gambling"] < worth.ads / 2
    assert worth.au_prc["gambling"] == pytest.approx(1.0)
    assert worth.decided > 0.9 * worth.ads
    assert worth.differ == worth.wrongly_let == worth.wrongly_kept == 0
    assert f"on {worth.ads} ads" in "\n".join(teach.lines(file, worth))
    assert teach.summary(file, worth)["decided"] == worth.decided
    routed.bench.book.reload()
    asked = len(routed.engine.asked)
    sent = [{"title": "green wool hat you small lamp"}, {"title": "new casino chair warm silk hat"}]
    said = await routed.results("risk", ads=sent, policy="games")
    assert [(r["source"], r["verdict"]) for r in said] == [
        ("router", "allow"),
        ("router", "block"),
    ]
    assert len(routed.engine.asked) == asked


async def test_nothing_is_written_where_nothing_can_be_learned(
    routed: Parts, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teach, "LEAST", 40)
    monkeypatch.setattr(network_fit, "EPOCHS", 2)
    write_policy(folder, "games", risk={"gambling": {}})
    routed.bench.book.reload()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    ads = write_ads(tmp_path / "ads.jsonl", 48, 0.0)
    with pytest.raises(MainJobError, match="flags too few of 48 ads as \\['gambling'\\]"):
        await asyncio.to_thread(teach.teach, service(routed), "games", ads, folder)
    with ads.open("a") as more:
        more.writelines(json.dumps({"ad_id": 400 + n}) + "\n" for n in range(3))
    with pytest.raises(MainJobError, match="3 ads could not be judged"):
        await asyncio.to_thread(teach.teach, service(routed), "games", ads, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_wrong_with_the_ads_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ads = write_ads(tmp_path / "ads.jsonl", 8, 0.0)
    ask = ["checks", "teach", "games", "--ads", str(ads), "--policies", str(tmp_path)]
    assert main([*ask, "--url", "http://127.0.0.1:9"]) == 2
    assert "500-100,000 ads, found 8" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match=r"a:1: .*labels"):
        teach.examples.unlabelled(b'{"title": "x", "labels": {"gambling": true}}', "a:1", tmp_path)
    monkeypatch.setattr(teach, "LEAST", 8)
    assert main([*ask, "--url", "http://127.0.0.1:9"]) == 1
    assert "does not answer" in capsys.readouterr().err
