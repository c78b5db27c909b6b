"""What a near copy inherits where a policy has prototypes, and where the router's band lies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.checks import copies, router
from serving.checks.duplicates import Creative
from serving.checks.onboarding import fitting, learning
from serving.checks.policy import Policy
from serving.checks.policy_file import PolicyFile
from serving.checks.verdicts import Risk
from tests.serving.cascade_support import RISKY as RISKY_WORD
from tests.serving.cascade_support import probe, probes, vector_of, write_policy
from tests.serving.checks_support import Parts, words_bundle

WORDS = "warm wool for cold days in all sizes with free returns for thirty days made in small runs"


PLAIN, RISKY = WORDS, f"{WORDS} casino"


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    """Review from 0.6 on, block from 0.9; prototypes that see one word each and decide nothing."""
    shy = {"below": 1e-9, "above": 1 - 1e-9}
    risk = {
        name: {"router": probe("e", word) | shy}
        for name, word in (("gambling", RISKY_WORD), ("alcohol", "whisky"))
    }
    file = PolicyFile.model_validate({"id": "games", "version": 1, "risk": risk})
    return Policy.of(words_bundle(tmp_path / "bundle"), file)


def holds(policy: Policy, first: str, copy: str, gambling: float, alcohol: float = 0.001) -> bool:
    """Whether what was said of one text holds for another, none of whose words is new."""
    one, other = (
        Creative(b"%d" % n, vector_of(text), frozenset(), set())
        for n, text in enumerate((first, copy))
    )
    odds = {"gambling": gambling, "alcohol": alcohol}
    said = Risk(policy.verdict(odds, 1.0), odds, 1.0)
    return copies.risk_holds(policy, other, one, said, router.prototypes(policy, "e"))


def test_what_moves_towards_a_category_is_no_copy(policy: Policy) -> None:
    assert holds(policy, PLAIN, PLAIN, 0.001)
    assert not holds(policy, PLAIN, RISKY, 0.001)
    # Of what was said to break it, a copy that is less so is to be judged for itself as well.
    assert holds(policy, RISKY, RISKY, 0.78)
    assert not holds(policy, RISKY, PLAIN, 0.78)


def test_what_moves_away_from_a_category_is_as_clean(policy: Policy) -> None:
    assert holds(policy, RISKY, PLAIN, 0.001)
    # Even of what was hardly clean: where it is moved to it is.
    assert holds(policy, RISKY, PLAIN, 0.55)
    assert not holds(policy, RISKY, RISKY, 0.55)


def test_what_moves_and_is_clear_all_the_same_is_as_clean(policy: Policy) -> None:
    parts = policy.file.risk or {}
    part = parts["gambling"]
    assert part.router is not None
    clear = part.model_copy(update={"router": part.router.model_copy(update={"below": 0.9})})
    file = policy.file.model_copy(update={"risk": dict(parts) | {"gambling": clear}})
    assert holds(replace(policy, file=file), PLAIN, RISKY, 0.001)


def test_only_what_could_change_the_verdict_must_be_far(policy: Policy) -> None:
    assert not holds(policy, PLAIN, PLAIN, 0.001, alcohol=0.62)  # hardly to be reviewed
    assert holds(policy, PLAIN, PLAIN, 0.78, alcohol=0.62)  # which another category sees to
    assert not holds(policy, PLAIN, PLAIN, 0.78, alcohol=0.89)  # hardly no block


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
