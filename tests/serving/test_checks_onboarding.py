"""Onboarding: labelled ads in, a version of the policy out that the service takes up."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store.record import CATEGORIES
from serving.__main__ import main
from serving.checks.onboarding import examples, fitting, job, learning, scoring
from serving.checks.onboarding.fitting import Line
from serving.checks.policy_file import Thresholds, parse
from serving.errors import ConfigurationError, MainJobError
from tests.serving.cascade_support import WordTowers, vector_of, write_policy
from tests.serving.checks_support import Parts, open_parts
from tests.serving.onboarding_support import service

WORDS = ("wool", "silk", "hat", "lamp", "chair", "green", "warm", "new", "small", "sale", "light")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    write_policy(tmp_path / "policies", "default")
    return tmp_path / "policies"


@pytest.fixture
async def parts(
    models: Path, revision: str, folder: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Parts]:
    monkeypatch.setenv("TESSERA_REDIS_URL", valkey_url)
    monkeypatch.setenv("TESSERA_MODELS", str(models))
    monkeypatch.setenv("TESSERA_POLICIES", str(folder))
    async with open_parts(models, WordTowers(models)) as opened:
        yield opened


def titles(count: int) -> list[tuple[str, bool]]:
    """Ads of known words, every third of them with the risky one."""
    draw = np.random.default_rng(5)
    plain = [" ".join(draw.choice(WORDS, 3, replace=False)) for _ in range(count)]
    return [(f"casino {t}" if n % 3 == 0 else t, n % 3 == 0) for n, t in enumerate(plain)]


def write_examples(path: Path, lines: list[dict[str, Any]]) -> list[examples.Example]:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return examples.read(path)


async def test_a_policy_is_onboarded_and_routes_what_it_learned(
    parts: Parts, folder: Path, tmp_path: Path, revision: str
) -> None:
    lines = [{"title": t, "labels": {"gambling": yes}} for t, yes in titles(64)]
    found = write_examples(tmp_path / "examples.jsonl", lines)
    file, reports = await asyncio.to_thread(job.onboard, service(parts), "games", found, folder)
    assert (file.version, set(file.risk or {})) == (1, {"gambling"})
    (report,) = reports
    assert (report.labels, report.positive) == (64, 22)
    assert report.model_au_prc == report.router_au_prc == 1.0
    assert report.model_ece < 0.05
    assert report.wrong == 0
    assert "22 yes" in "\n".join(job.lines(file, reports))
    assert parse((folder / "games.yaml").read_bytes(), "games.yaml") == file
    assert parts.bench.book.reload()
    assert not parts.bench.book.problems
    asked = len(parts.engine.asked)
    body = {"ads": [{"title": "casino"}, {"title": "warm wool"}], "policy": "games"}
    said = await parts.results("risk", **body)
    assert [r["verdict"] for r in said] == ["block", "allow"]
    assert [r["source"] for r in said] == ["router", "router"]
    assert len(parts.engine.asked) == asked
    again, _ = await asyncio.to_thread(job.onboard, service(parts), "games", found, folder)
    assert again.version == 2  # fitted to the same, from where it was


async def test_relevance_learns_its_cosine_and_the_rest_of_the_policy_stays(
    parts: Parts, folder: Path, tmp_path: Path
) -> None:
    write_policy(folder, "default", version=6, text="Be strict. ", enforce=False)
    parts.bench.book.reload()
    pairs = [(w, f"{w} for you", True) for w in WORDS]
    pairs += [(w, f"{o} for you", False) for w, o in zip(WORDS, reversed(WORDS), strict=True)]
    pairs = [(w, t, yes) for w, t, yes in pairs if yes or w not in t]
    lines = [{"title": t, "query": w, "relevant": yes} for w, t, yes in pairs]
    found = write_examples(tmp_path / "examples.jsonl", lines)
    file, (report,) = await asyncio.to_thread(job.onboard, service(parts), "default", found, folder)
    assert (file.version, file.text, file.enforce, file.risk) == (7, "Be strict. ", False, None)
    assert report.question == "relevance"
    assert report.router_au_prc == 1.0
    assert parts.bench.book.reload()
    ads = [{"title": "lamp"}, {"title": "casino"}]
    said = await parts.results("relevance", query="lamp", ads=ads)
    assert said[0]["source"] == "router"
    assert said[0]["score"] > 0.9


async def test_what_people_decided_is_learned_from(
    parts: Parts, folder: Path, tmp_path: Path
) -> None:
    await parts.put(1, "bingo hall", vector=vector_of("bingo hall"))
    body = {"verdict": "block", "categories": {"gambling": True}}
    assert (await parts.http.put("/overrides/1", json=body)).status_code == 200
    decided = examples.decided(await asyncio.to_thread(service(parts).decisions))
    assert [(e.ad, e.labels) for e in decided] == [({"ad_id": 1}, {"gambling": True})]
    lines = [{"title": t, "labels": {"gambling": yes}} for t, yes in titles(12)]
    found = write_examples(tmp_path / "examples.jsonl", lines) + decided
    _, (report,) = await asyncio.to_thread(job.onboard, service(parts), "games", found, folder)
    assert (report.labels, report.positive) == (13, 5)


async def test_nothing_is_written_when_an_example_cannot_be_judged(
    parts: Parts, folder: Path, tmp_path: Path
) -> None:
    lines: list[dict[str, Any]] = [{"title": t, "labels": {"gambling": y}} for t, y in titles(8)]
    found = write_examples(
        tmp_path / "e.jsonl", [*lines, {"ad_id": 404, "labels": {"gambling": 1}}]
    )
    before = sorted(folder.iterdir())
    with pytest.raises(MainJobError, match="1 examples could not be judged"):
        await asyncio.to_thread(job.onboard, service(parts), "games", found, folder)
    write_policy(folder, "unread")
    with pytest.raises(MainJobError, match="has no policy 'unread'"):
        await asyncio.to_thread(job.onboard, service(parts), "unread", found[:8], folder)
    (folder / "unread.yaml").unlink()
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"title": "x"}, "expected labels"),
        ({"labels": {"gambling": True}}, "an ad_id, or a title"),
        ({"ad_id": 1, "title": "x", "labels": {"gambling": True}}, "an ad_id, or a title"),
        ({"title": "x", "labels": {"smoking": True}}, "no categories"),
        ({"title": "x", "query": "x"}, "go together"),
        ({"title": "x", "labels": {"gambling": True}, "image": "../x.jpg"}, "outside"),
        ({"title": "x", "labels": {"gambling": True}, "image": "none.jpg"}, "No such file"),
        ({"title": "x", "label": True}, "label"),
    ],
)
def test_wrong_examples_are_named(tmp_path: Path, line: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as error:
        write_examples(tmp_path / "examples.jsonl", [line])
    assert "examples.jsonl:1" in str(error.value)


def test_the_command_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TESSERA_POLICIES", raising=False)
    file = tmp_path / "examples.jsonl"
    file.write_text('{"title": "x", "labels": {"gambling": true}}\n' * 8)
    ask = ["checks", "onboard", "games", "--examples", str(file)]
    assert main(ask) == 2
    assert "--policies" in capsys.readouterr().err
    assert main([*ask, "--policies", str(tmp_path / "none")]) == 2
    assert main([*ask[:2], "../games", *ask[3:], "--policies", str(tmp_path)]) == 2
    capsys.readouterr()
    nobody = "http://127.0.0.1:9"
    assert main([*ask, "--policies", str(tmp_path), "--url", nobody]) == 1
    assert "does not answer" in capsys.readouterr().err
    file.write_text('{"title": "x", "labels": {"gambling": true}}\n' * 7)
    assert main([*ask, "--policies", str(tmp_path)]) == 2
    assert "8-8,192" in capsys.readouterr().err


def test_average_precision_is_the_area_under_the_steps() -> None:
    # scikit-learn 1.5: average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert scoring.average_precision(scores, labels) == pytest.approx(0.8333333)
    assert scoring.average_precision(np.ones(4), labels) == pytest.approx(0.5)  # all in one step
    assert scoring.average_precision(scores, labels & False) is None


def test_calibration_error_counts_the_gaps() -> None:
    p = np.repeat([0.2, 0.8], 50)
    labels = np.r_[np.arange(50) < 10, np.arange(50) < 40]
    assert scoring.calibration_error(p, labels, bins=2) == pytest.approx(0, abs=1e-12)
    assert scoring.calibration_error(1 - p, labels, bins=2) == pytest.approx(0.6)


def drawn(count: int, scale: float, bias: float) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    x = draw.normal(0, 3, count)
    return x, draw.random(count) < fitting.sigmoid(scale * x + bias)


def test_calibration_finds_what_made_the_labels_and_shrinks_where_there_are_few() -> None:
    x, labels = drawn(5_000, 0.5, 1.0)
    found = fitting.calibrate(x, labels, Line(1.0, 0.0))
    assert (found.scale, found.bias) == pytest.approx((0.5, 1.0), abs=0.1)
    few = fitting.calibrate(np.array([3.0, -3.0]), np.array([True, False]), Line(1.0, 0.0))
    assert 0.5 < few.scale < 1.1
    assert abs(few.bias) < 0.01
    one_sided = fitting.calibrate(np.full(8, 2.0), np.ones(8, bool), Line(1.0, 0.0))
    assert np.isfinite([one_sided.scale, one_sided.bias]).all()


def test_64_labels_calibrate_to_a_twentieth() -> None:
    """ECE on 5,000 held-out labels, 15 bins of equal mass, of a model that is far too sure."""
    x, labels = drawn(5_064, 0.5, 1.0)
    fit = fitting.calibrate(x[:64], labels[:64], Line(1.0, 0.0))
    before = scoring.calibration_error(fitting.sigmoid(x[64:]), labels[64:])
    after = scoring.calibration_error(fitting.sigmoid(fit(x[64:])), labels[64:])
    assert after <= 0.05 < before


def test_held_out_odds_have_not_seen_their_row() -> None:
    draw = np.random.default_rng(2)
    rows = draw.normal(size=(40, 60))  # more numbers than rows: anything can be learned by heart
    labels = np.arange(40) % 2 == 0
    plane, held = fitting.best_probe(rows, labels)
    seen = scoring.average_precision(plane(rows), labels)
    unseen = scoring.average_precision(held, labels)
    assert seen is not None
    assert unseen is not None
    assert seen > 0.95 > 0.75 > unseen
    masks = list(fitting.folds(np.arange(200) % 5 == 0))
    assert len(masks) == fitting.FOLDS
    assert (np.sum(masks, 0) == 1).all()
    assert all((np.arange(200) % 5 == 0)[mask].sum() == 4 for mask in masks)


def test_few_labels_move_thresholds_little_and_make_no_router() -> None:
    before = Thresholds(review=0.5, block=0.9)
    held, labels = np.linspace(0.01, 0.99, 200), np.linspace(0.01, 0.99, 200) > 0.3
    many = learning.thresholds(held, labels, before)
    few = learning.thresholds(held[::25], labels[::25], before)
    assert 0.3 < many.review < few.review < 0.5
    assert many.review <= many.block < 0.9
    assert learning.thresholds(held, labels & False, before) == before
    three = np.arange(20) < learning.FEW - 1
    assert learning.prototype(np.eye(20), three, "r") is None
    assert learning.cosine_router(np.linspace(0, 1, 20), three, "r") is None


def test_the_routers_band_holds_all_that_was_seen_on_the_wrong_side() -> None:
    held = np.array([-9.0, -6.0, 1.0, -5.0, 4.0, 9.0])
    labels = np.array([False, False, False, True, True, True])
    low, high = learning.band(held, labels)
    p = fitting.sigmoid(held)
    assert (p[labels] > low).all()
    assert (p[~labels] < high).all()
    assert p[0] <= low <= 0.1
    assert p[-1] >= high >= 0.9


def test_every_category_can_be_labelled() -> None:
    line = json.dumps({"title": "x", "labels": dict.fromkeys(CATEGORIES, False)})
    assert examples.questions([examples.parse(line.encode(), "x", Path())]) == list(CATEGORIES)
