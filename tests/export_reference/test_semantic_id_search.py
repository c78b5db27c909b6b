"""The search for codes: the most activated entry of each level, and how S and M look anew."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from export.reference.weights import save_weights
from export.semantic_id import search
from export.semantic_id.model import CARRY, NAMES, SemanticId
from tests.export_reference.semantic_id_support import Learned, vectors


def test_each_code_is_the_most_activated_entry_of_its_level(learned: Learned) -> None:
    model = deepcopy(learned[0])
    model.again.fill_(0)
    rows = torch.from_numpy(vectors(50, seed=3))
    codes, margin = model.encode(rows)
    h = model.latent(rows).double()
    carried = torch.zeros_like(h)
    for level in range(len(NAMES)):
        if level % 2 == 0:
            residual = h - CARRY * carried
        _check_choice(model, level, residual, codes, margin)
        entry = model.keys(level).double()[codes[:, level].long()]
        residual, carried = residual - entry, carried + entry


@pytest.mark.parametrize("again", [1, 2])
def test_s_and_m_look_anew_at_what_fits_all_the_others_best(learned: Learned, again: int) -> None:
    model, rows = deepcopy(learned[0]), torch.from_numpy(vectors(50, seed=3))
    model.again.fill_(0)
    first = model.encode(rows)[0]
    model.again.fill_(again)
    codes, margin = model.encode(rows)
    assert torch.equal(codes[:, 4], first[:, 4])
    assert not torch.equal(codes[:, :4], first[:, :4])
    latent = model.latent(rows).double()
    entries = [model.keys(i).double()[first[:, i].long()] for i in range(len(NAMES))]
    errors = [_error(latent, entries)]
    if again == 2:
        entries[5] = torch.zeros_like(latent)
        _look(model, latent, entries)
        entries[5] = model.keys(5).double()[codes[:, 5].long()]
        errors.append(_error(latent, entries))
        _check_choice(model, 5, _missing(latent, entries, 5), codes, margin)
    _look(model, latent, entries)
    errors.append(_error(latent, entries))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.97 * errors[0]
    for level in range(4):
        assert torch.equal(entries[level], model.keys(level).double()[codes[:, level].long()])


def _look(model: SemanticId, latent: Tensor, entries: list[Tensor]) -> None:
    """Each level of S and M chooses what the five others leave over; all sums are exact."""
    for level in range(4):
        seen = _missing(latent, entries, level)
        entries[level] = model.keys(level).double()[_activation(model, level, seen).argmax(1)]


def _missing(latent: Tensor, entries: list[Tensor], level: int) -> Tensor:
    weight = 1 if level > 3 else CARRY
    others = [each if i != level else 0 * each for i, each in enumerate(entries)]
    return (latent - CARRY * torch.stack(others[:4]).sum(0) - others[4] - others[5]) / weight


def _error(latent: Tensor, entries: list[Tensor]) -> float:
    said = CARRY * torch.stack(entries[:4]).sum(0) + entries[4] + entries[5]
    return float((latent - said).square().sum())


def _activation(model: SemanticId, level: int, seen: Tensor) -> Tensor:
    return seen @ model.keys(level).double().T + model.threshold(level).double()


def _check_choice(
    model: SemanticId, level: int, seen: Tensor, codes: Tensor, margin: Tensor
) -> None:
    """`codes` at a level are the most activated entries for what it sees, in float64."""
    activation = _activation(model, level, seen)
    best = activation.topk(2).values
    lead = best[:, 0] - best[:, 1]
    clear = lead > 1e-5
    assert clear.sum() > len(clear) / 2
    assert torch.equal(activation.argmax(1).int()[clear], codes[clear, level])
    torch.testing.assert_close(margin[:, level], lead.float(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("count", [7, 32, 64, 96, 256])
def test_the_first_of_the_largest_wins_in_blocks_too(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    score = torch.randint(40, (300, count), generator=generator).float()  # many ties
    entries = torch.eye(count)
    (choice,) = search.choices(score, [(entries, torch.zeros(count))], CARRY, again=0)
    assert torch.equal(choice.code, score.argmax(1))
    best = score.topk(2).values
    assert torch.equal(choice.margin, best[:, 0] - best[:, 1])


@pytest.mark.parametrize("again", [0, 1])
def test_files_from_before_keep_their_codes(learned: Learned, tmp_path: Path, again: int) -> None:
    """The first files do not say how often S and M look; those after them say once."""
    old = deepcopy(learned[0])
    old.again.fill_(again)
    save_weights(old, tmp_path / "old.safetensors", {})
    if not again:
        state = load_file(tmp_path / "old.safetensors")
        del state["again"]
        save_file(state, tmp_path / "old.safetensors")
    back = SemanticId.from_weights(tmp_path / "old.safetensors")
    assert int(back.again) == again
    rows = torch.from_numpy(vectors(200, seed=6))
    old.basis.copy_(back.basis)  # half as many digits in files
    found, wanted = back.encode(rows), old.encode(rows)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])
