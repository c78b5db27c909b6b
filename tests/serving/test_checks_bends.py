"""Calibration that bends where many labels say so, and stays a line where they do not."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from export.checks import Affine
from serving.checks.bends import Bent, log_odds
from serving.checks.onboarding import bending, fitting, learning, scoring
from serving.checks.onboarding.fitting import Line, sigmoid
from serving.checks.policy import Policy, probability
from serving.checks.policy_file import ModelCalibration, PolicyFile, dump, parse
from serving.llm.asks import Read
from tests.serving.checks_support import words_bundle

PLAIN = Line(1.0, 0.0)


def drawn(count: int, seed: int, bend: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of a model that is far surer of a no than of a yes, by `bend`; labels that hold."""
    draw = np.random.default_rng(seed)
    x = draw.normal(0, 4, count)
    return x, draw.random(count) < sigmoid(np.where(x > 0, x, x / (1 + bend)))


def test_labels_of_a_bent_model_bend_the_line() -> None:
    x, labels = drawn(4_000, 1, 8.0)
    found = bending.calibrate(x, labels, PLAIN)
    assert found.bends
    seen, truth = drawn(40_000, 2, 8.0)
    straight = fitting.calibrate(x, labels, PLAIN)
    before = scoring.calibration_error(sigmoid(straight(seen)), truth)
    after = scoring.calibration_error(sigmoid(found(seen)), truth)
    assert after <= 0.02 < before


def test_few_labels_and_straight_models_keep_the_line() -> None:
    x, labels = drawn(bending.MANY - 1, 1, 8.0)
    assert bending.calibrate(x, labels, PLAIN).bends == ()
    x, labels = drawn(4_000, 5, 0.0)
    held = sigmoid(bending.calibrate(x, labels, PLAIN)(x))
    assert scoring.calibration_error(held, labels) <= 0.02
    same = bending.calibrate(np.ones(600), np.arange(600) % 2 == 0, PLAIN)
    assert same.bends == ()  # one place is not enough to bend at


def test_a_curve_means_the_same_fitted_written_and_served() -> None:
    x, labels = drawn(4_000, 1, 8.0)
    written, held, report = learning.calibration("gambling", x, labels, PLAIN)
    assert report.model_ece == scoring.calibration_error(held, labels)
    part = {"gambling": {"calibration": written.model_dump()}}
    file = PolicyFile.model_validate({"id": "games", "version": 1, "risk": part})
    assert parse(dump(file), "games.yaml") == file
    curve = bending.calibrate(x, labels, PLAIN)
    served = Bent(written.scale, written.bias, written.bends)
    places = np.linspace(-20, 20, 81)
    stated = [log_odds(served, one) for one in places.tolist()]
    np.testing.assert_allclose(stated, curve(places), atol=1e-3)
    assert (np.diff(stated) >= -1e-3).all()
    assert log_odds(Affine(2.0, 1.0), 3.0) == 7.0


def test_a_file_without_bends_is_read_and_one_that_falls_is_not() -> None:
    data = b"id: games\nversion: 1\nrelevance: {calibration: {scale: 0.7, bias: -0.4}}\n"
    old = parse(data, "games.yaml").relevance.calibration
    assert old == ModelCalibration(scale=0.7, bias=-0.4)
    with pytest.raises(ValidationError, match="never falls"):
        ModelCalibration(scale=0.5, bends=((0.0, 1.0), (1.0, 0.0)))
    with pytest.raises(ValidationError, match="ascend"):
        ModelCalibration(bends=((1.0, 0.0), (1.0, 0.0)))


def test_the_policy_says_what_the_curve_says(tmp_path: Path) -> None:
    said = {"scale": 0.5, "bias": 1.0, "bends": [[0.0, 0.5], [8.0, -1.0]]}
    file = PolicyFile.model_validate(
        {"id": "games", "version": 1, "risk": {"gambling": {"calibration": said}}}
    )
    policy = Policy.of(words_bundle(tmp_path / "bundle"), file)
    stated = probability(Read((-1.0, -5.0), 0), policy.checks.calibration.risk["gambling"])
    assert stated == pytest.approx(1 / (1 + np.exp(-(0.5 * 4 + 1 - 0.25))), abs=1e-6)
