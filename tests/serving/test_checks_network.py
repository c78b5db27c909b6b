"""A router taught by the model's verdicts: what it learns, and what it leaves to the model."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from serving.checks.onboarding import distilling, job, network_fit
from serving.checks.onboarding.distilling import Limits, Verdicts
from serving.checks.onboarding.examples import Example
from serving.checks.onboarding.service import Evidence, Gathered
from serving.checks.policy_file import PolicyFile, dump, parse
from serving.checks.policy_network import Network
from tests.serving.cascade_support import D, vector_of, write_policy
from tests.serving.checks_support import Parts

HARMLESS = ("wool", "silk", "hat", "lamp", "chair", "green", "warm", "new", "small", "scarf", "you")
CATEGORIES = ("gambling", "alcohol")
LIMITS = Limits(np.array([0.5, 0.5]), np.array([0.9, 0.9]))


def words_of(text: str) -> frozenset[int]:
    return frozenset(zlib.crc32(word.encode()) for word in text.split())


def drawn(count: int) -> list[str]:
    """Ads of harmless words, some of which name one risk or the other."""
    draw = np.random.default_rng(3)
    texts = []
    for _ in range(count):
        words = [str(word) for word in draw.choice(HARMLESS, 6)]
        words += [risk for risk in ("casino", "whisky") if draw.random() < 0.25]
        texts.append(" ".join(words))
    return texts


def probabilities(texts: list[str]) -> Any:
    """As a model would give them that knows the two words."""
    risky = [[("casino" in text), ("whisky" in text)] for text in texts]
    return np.where(risky, 0.995, 0.002)


@pytest.fixture(scope="module", autouse=True)
def fewer() -> Iterator[None]:
    """Two networks side by side are as good as three here, and sooner there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_fit, "NETWORKS", 2)
        yield


@pytest.fixture(scope="module")
def taught() -> PolicyFile:
    texts = drawn(1_200)
    vectors = np.stack([vector_of(text) for text in texts])
    seen = Verdicts(vectors, [words_of(text) for text in texts], probabilities(texts))
    file = PolicyFile(id="default", version=1)
    return distilling.distil(file, CATEGORIES, seen, LIMITS, "encoder")


def test_the_same_verdicts_teach_the_same_and_a_file_holds_it(taught: PolicyFile) -> None:
    texts = drawn(240)
    vectors = np.stack([vector_of(text) for text in texts])
    seen = Verdicts(vectors, [words_of(text) for text in texts], probabilities(texts))
    file = PolicyFile(id="default", version=1)
    one, other = (distilling.distil(file, CATEGORIES, seen, LIMITS, "e") for _ in range(2))
    assert one == other
    assert one.network is not None
    assert one.network.width == 2 * network_fit.HIDDEN
    assert parse(dump(taught), "default.yaml") == taught


def test_it_says_what_the_model_would(taught: PolicyFile) -> None:
    assert taught.network is not None
    assert taught.risk is not None
    right = 0
    texts = drawn(1_400)[1_200:]
    for text in texts:
        hidden = taught.network(vector_of(text), words_of(text))
        for at, name in enumerate(CATEGORIES):
            router = taught.risk[name].router
            assert router is not None
            odds = float(router.vector @ hidden) + router.bias
            right += (odds > 0) == (probabilities([text])[0, at] > 0.5)
    assert right >= 0.99 * 2 * len(texts)


def test_a_network_must_fit_its_words_and_its_prototypes(taught: PolicyFile) -> None:
    assert taught.network is not None
    ragged = taught.network.model_dump() | {"weights": taught.network.weights[:-8]}
    with pytest.raises(ValidationError, match="expected"):
        Network.model_validate(ragged)
    words, bias = np.array([1], np.uint32), np.zeros(2, np.float32)
    with pytest.raises(ValidationError, match="finite"):
        Network.of(words, np.full((3, 2), np.inf, np.float32), bias)
    other = Network.of(words, np.ones((3, 2), np.float32), bias)
    with pytest.raises(ValidationError, match="prototypes"):
        PolicyFile.model_validate(taught.model_dump() | {"network": other.model_dump()})


def test_onboarding_takes_the_place_of_a_network(taught: PolicyFile) -> None:
    """Its prototypes look at vectors; one of either kind would compare nothing."""
    labels = [row % 2 == 0 for row in range(12)]
    ads = [Example({"ad_id": 1}, {"gambling": label}, None, False) for label in labels]
    rows = {
        row: Evidence({"gambling": 4.0 * label - 2}, None, None) for row, label in enumerate(labels)
    }
    now = {
        "categories": list(CATEGORIES),
        "calibration": {"gambling": (1.0, 0.0)},
        "thresholds": {"gambling": (0.5, 0.9)},
    }
    found = job._with_risk(taught, now, ads, Gathered(rows), [])
    assert found.network is None
    assert found.risk is not None
    assert [part.router for part in found.risk.values()] == [None, None]
    assert found.risk["gambling"].calibration is not None


async def test_what_is_clear_is_routed_and_a_word_it_does_not_know_never_is(
    routed: Parts, folder: Path, revision: str, taught: PolicyFile
) -> None:
    assert taught.risk is not None
    risk = {
        name: {"router": part.router.model_copy(update={"encoder": revision}).model_dump()}
        for name, part in taught.risk.items()
        if part.router is not None
    }
    assert taught.network is not None
    network = taught.network.model_dump()
    write_policy(folder, "default", risk=risk, network=network, duplicates={"cosine": 0.8})
    routed.bench.book.reload()
    plain = " ".join(HARMLESS[:6])
    ads = [{"text": plain}, {"text": f"{HARMLESS[9]} lamp lamp casino"}]
    found = [(await routed.results("risk", ads=[ad]))[0] for ad in ads]
    assert [(r["source"], r["verdict"]) for r in found] == [
        ("router", "allow"),
        ("router", "block"),
    ]
    # A risk that is spelt in another way is no word the network knows: it is neither routed nor
    # taken for a copy of what was clean.
    (hidden,) = await routed.results("risk", ads=[{"text": f"{plain} cas1no"}])
    assert hidden["source"] == "llm"
    (same,) = await routed.results("risk", ads=[{"text": " ".join(HARMLESS[5::-1])}])
    assert (same["source"], same["verdict"]) == ("duplicate", "allow")


def test_an_ad_longer_than_what_is_looked_at_holds_an_unknown_word() -> None:
    from serving.checks.duplicates import WORDS, Creative
    from serving.checks.subjects import Subject

    vector = np.zeros(D, np.float32)
    short = Creative.of(Subject(b"1", "hat " * WORDS, ""), vector)
    long = Creative.of(Subject(b"2", "hat " * (WORDS + 1), ""), vector)
    assert len(short.words) == 1
    assert long.words - short.words
