"""The parts of learning: codebooks without idle entries, splits by product, copies of rows."""

import numpy as np
import torch
import torch.nn.functional as F

from export.semantic_id import split
from export.semantic_id.codebooks import balance, kmeans, nearest, perplexity
from export.semantic_id.contrast import Contrast, best_contrast
from tests.export_reference.semantic_id_support import vectors


def test_no_entry_stays_empty() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat([torch.zeros(500, 4), torch.randn(120, 4, generator=generator) + 3])
    keys = kmeans(rows, 8, 6, generator)
    assert len(nearest(rows, keys).unique()) >= 7


def test_a_lopsided_codebook_is_evened_out() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(4000, 8, generator=generator) * torch.rand(4000, 1, generator=generator) ** 2
    keys = rows[:64].clone()
    before = perplexity(torch.bincount(nearest(rows, keys), minlength=64))
    after = balance(rows, keys, 0.9, 16)
    assert perplexity(torch.bincount(after.choose(rows), minlength=64)) > max(before + 0.02, 0.85)


def test_the_same_product_stays_on_one_side() -> None:
    pairs = np.array([[0, 900, 1], [900, 500, 1], [3, 4, 0]])
    group = split.groups(1000, pairs)
    held = split.share(group, 0.5, seed=7)
    assert held[0] == held[900] == held[500]
    assert group[3] != group[4]
    assert 0.4 < held.mean() < 0.6


def test_labels_that_tie_everything_together_still_leave_rows_to_judge() -> None:
    chain = np.stack([np.arange(999), np.arange(1, 1000), np.ones(999, np.int64)], 1)
    held = split.share(split.groups(1000, chain), 0.2, seed=1)
    assert 100 <= held.sum() <= 200


def test_copies_of_a_row_are_learned_from_once() -> None:
    rows = vectors(300, seed=1)
    copied = np.concatenate([rows[:5], rows, rows[:100]])
    pairs = np.array([[0, 105, 1], [5, 304, 0], [9, 314, 1]])
    found, numbered = split.distinct(copied, pairs)
    assert np.array_equal(found, rows)
    assert numbered is not None
    assert np.array_equal(found[numbered[:, 0]], copied[pairs[:, 0]])
    assert np.array_equal(found[numbered[:, 1]], copied[pairs[:, 1]])
    assert split.distinct(rows, None)[1] is None


def test_a_last_scale_that_is_damped_becomes_louder() -> None:
    rows = torch.from_numpy(vectors(400, seed=1))
    mean = rows.mean(0)
    target = rows - mean
    parts = torch.zeros(400, 6, 48)
    parts[:, 0, :24], parts[:, 4, 24:] = target[:, :24], target[:, 24:] / 1.4
    found = best_contrast(parts, target, mean)
    assert found == Contrast(mean=1.0, last=1.4)
    louder = found.weights(torch.ones(48))
    assert torch.equal(louder[:4], torch.ones(4, 48))
    assert torch.equal(louder[4:], torch.full((2, 48), 1.4))


def test_dimensions_that_are_damped_for_being_faint_become_louder() -> None:
    scale = torch.logspace(0, -1, 48)
    rows = F.normalize(torch.from_numpy(vectors(400, seed=1)) * scale, dim=1)
    target = rows - rows.mean(0)
    share = target.square().mean(0)
    share = share / share.max()
    parts = torch.zeros(400, 6, 48)
    parts[:, 1] = target * share**0.2
    found = best_contrast(parts, target, rows.mean(0))
    assert found.tilt == 0.2
    torch.testing.assert_close(found.weights(share)[1], share**-0.2)
