"""Captions are cut until they are right as often as soft tokens, on images that did not choose."""

import numpy as np

from benchmarks.checks.matching import matched


def drawn(images: int, seed: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Checks of images: with k tokens k in ten are right, and three in four with soft tokens."""
    draw = np.random.default_rng(seed)
    number = np.repeat(np.arange(images), 4)
    luck = draw.random(len(number))
    cut = [luck < k / 10 for k in range(11)]
    return draw.random(len(number)) < 0.75, cut, number


def test_a_mixture_of_two_lengths_is_right_as_often() -> None:
    soft, cut, images = drawn(5_000, 1)
    found = matched(soft, cut, images, np.full(5_000, 10), 2)
    assert abs(found.right.mean() - soft.mean()) < 0.02
    assert set(np.unique(found.tokens)) == {7, 8}
    for k, share in found.chosen:
        assert k == 8
        assert 0.3 < share < 0.7
    assert abs(found.tokens.mean() - 7.5) < 0.2


def test_what_no_caption_reaches_gets_the_whole_one() -> None:
    _, cut, images = drawn(100, 1)
    short = np.arange(100) % 5
    found = matched(np.ones(400, bool), cut[:5], images, short, 2)
    assert found.chosen == ((4, 1.0), (4, 1.0))
    assert (found.tokens == short).all()
    assert (found.right == cut[4]).all()
