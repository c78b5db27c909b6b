"""What a near copy inherits where a policy has prototypes, and where the router's band lies."""

from pathlib import Path

import numpy as np
import pytest

from serving.checks import router
from serving.checks.onboarding import fitting, learning
from serving.checks.policy_file import Prototype
from tests.serving.cascade_support import direction, probe, probes, vector_of, write_policy
from tests.serving.checks_support import Parts

WORDS = "warm wool for cold days in all sizes with free returns for thirty days made in small runs"
MARGIN = 0.5


@pytest.fixture
def casino() -> Prototype:
    """30 times the direction of one word, -12: sure from a share of about a third."""
    return Prototype.model_validate(probe("e"))


def test_what_moves_towards_a_category_is_no_copy(casino: Prototype) -> None:
    plain, risky = vector_of(WORDS), vector_of(f"{WORDS} casino")
    assert not router.stays(casino.model_copy(update={"below": 1e-9}), True, plain, risky, MARGIN)
    # Of what was said to break it, a copy that is less so is to be judged for itself as well.
    assert not router.stays(casino, False, risky, plain, MARGIN)


def test_what_moves_away_from_a_category_is_as_clean(casino: Prototype) -> None:
    plain, risky = vector_of(WORDS), vector_of(f"{WORDS} casino")
    assert router.stays(casino.model_copy(update={"below": 1e-9}), True, risky, plain, MARGIN)


def test_what_moves_and_is_clear_all_the_same_is_as_clean(casino: Prototype) -> None:
    plain = vector_of(WORDS)
    nearer = plain + 0.1 * direction("casino")  # 3 log-odds nearer, and 9 away still
    assert router.score(casino, nearer) < casino.below
    assert router.stays(casino, True, plain, nearer, MARGIN)
    assert not router.stays(casino, False, plain, nearer, MARGIN)


async def test_a_copy_without_the_word_inherits_and_one_with_it_does_not(
    routed: Parts, folder: Path, revision: str
) -> None:
    routed.engine.yes_to = "never"
    every = probes(revision)
    for part in every.values():
        part["router"] |= {"below": 1e-9, "above": 1 - 1e-9}  # decides nothing
    write_policy(folder, "default", risk=every, duplicates={"cosine": 0.8, "margin": 3.0})
    routed.bench.book.reload()
    texts = [f"{WORDS} casino", f"{WORDS} scarf", f"{WORDS} casino hat"]
    found = [(await routed.results("risk", ads=[{"text": text}]))[0] for text in texts]
    assert [r["source"] for r in found] == ["llm", "duplicate", "duplicate"]
    write_policy(folder, "default", version=2, risk=every, duplicates={"cosine": 0.8, "margin": 3})
    routed.bench.book.reload()
    found = [(await routed.results("risk", ads=[{"text": text}]))[0] for text in texts[1:]]
    assert [r["source"] for r in found] == ["llm", "llm"]


def test_of_many_labels_a_few_may_lie_beyond_the_routers_thresholds() -> None:
    draw = np.random.default_rng(1)
    labels = np.arange(4_000) < 1_000
    held = np.where(labels, 6.0, -6.0) + draw.normal(size=4_000)
    held[0], held[-1] = -20.0, 20.0  # one of each label that nobody could tell
    low, high = learning.band(held, labels)
    wrong = (held[labels] <= np.log(low / (1 - low))).sum()
    assert wrong <= learning.MISSED * 1_000
    assert low > fitting.sigmoid(np.array([-20.0]))[0]
    assert 1 - high > fitting.sigmoid(np.array([-20.0]))[0]
    strict, _ = learning.band(held[::100], labels[::100])  # of few labels none may
    assert strict < fitting.sigmoid(np.array([-20.0]))[0]


def test_a_probe_of_many_rows_finds_what_a_probe_of_few_finds() -> None:
    draw = np.random.default_rng(2)
    rows = draw.normal(size=(fitting.MANY + 200, 8))
    labels = rows[:, 0] + 0.3 * draw.normal(size=len(rows)) > 0.8
    for count in (400, len(rows)):
        plane, odds = fitting.best_probe(rows[:count], labels[:count])
        assert ((odds > 0) == labels[:count]).mean() > 0.9
        assert int(np.abs(plane.weights).argmax()) == 0
