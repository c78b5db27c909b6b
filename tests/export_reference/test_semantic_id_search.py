"""The search for codes: the most activated entry of each level, and the second look."""

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


def test_a_second_look_chooses_what_fits_all_the_others_best(learned: Learned) -> None:
    model, rows = learned[0], torch.from_numpy(vectors(50, seed=3))
    first = deepcopy(model)
    first.again.fill_(0)
    before, (codes, margin) = first.encode(rows)[0], model.encode(rows)
    assert torch.equal(codes[:, 4:], before[:, 4:])
    assert not torch.equal(codes[:, :4], before[:, :4])
    entries = [model.keys(i).double()[before[:, i].long()] for i in range(len(NAMES))]
    latent = model.latent(rows).double()
    errors = [_error(latent, entries)]
    for level in range(4):
        entries[level] = torch.zeros_like(latent)
        missing = (latent - entries[4] - entries[5]) / CARRY - sum(entries[:4])
        _check_choice(model, level, missing, codes, margin)
        entries[level] = model.keys(level).double()[codes[:, level].long()]
        errors.append(_error(latent, entries))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.97 * errors[0]


def _error(latent: Tensor, entries: list[Tensor]) -> float:
    said = CARRY * torch.stack(entries[:4]).sum(0) + entries[4] + entries[5]
    return float((latent - said).square().sum())


def _check_choice(
    model: SemanticId, level: int, seen: Tensor, codes: Tensor, margin: Tensor
) -> None:
    """`codes` at a level are the most activated entries for what it sees, in float64."""
    keys = model.keys(level).double()
    activation = seen @ keys.T - keys.square().sum(1) / 2 + model.bias(level).double()
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
    (choice,) = search.choices(score, [(entries, torch.zeros(count))], CARRY, again=False)
    assert torch.equal(choice.code, score.argmax(1))
    best = score.topk(2).values
    assert torch.equal(choice.margin, best[:, 0] - best[:, 1])


def test_files_from_before_the_second_look_keep_their_codes(
    learned: Learned, tmp_path: Path
) -> None:
    old = deepcopy(learned[0])
    old.again.fill_(0)
    save_weights(old, tmp_path / "new.safetensors", {})
    state = load_file(tmp_path / "new.safetensors")
    del state["again"]
    save_file(state, tmp_path / "old.safetensors")
    rows = torch.from_numpy(vectors(200, seed=6))
    found, wanted = (
        SemanticId.from_weights(tmp_path / f"{name}.safetensors").encode(rows)
        for name in ("old", "new")
    )
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])
