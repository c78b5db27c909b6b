from pathlib import Path

import pytest
import torch

from export.reference.augment import Views, crops, mix
from export.reference.image_training import Plan, train
from export.reference.photos import open_folder

PLAN = Plan(epochs=2, seed=3, batch=8, drawn_batch=4, drawn=24)


class StopTrainingError(Exception):
    pass


def test_an_interrupted_training_goes_on_to_the_same_weights(
    drawn_photos: Path, tmp_path: Path
) -> None:
    folder = open_folder(drawn_photos)

    def interrupt(note: str) -> None:
        raise StopTrainingError(note)

    with pytest.raises(StopTrainingError, match="epoch 1 "):
        train(folder, PLAN, tmp_path / "cut" / "checkpoint.pt", interrupt)
    notes: list[str] = []
    resumed = train(folder, PLAN, tmp_path / "cut" / "checkpoint.pt", notes.append)
    assert [note.split()[1] for note in notes] == ["2"]
    whole = train(folder, PLAN, tmp_path / "whole" / "checkpoint.pt", notes.append)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_views_are_pixels_and_repeat_with_their_generator() -> None:
    squares = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    aspect = torch.tensor([0.5, 0.75, 1.0, 1.3, 2.0, 1.0])
    first, second = (
        crops(squares, aspect, 24, Views(), torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert first.shape == (6, 3, 24, 24)
    assert 0 <= float(first.min()) <= float(first.max()) <= 255
    assert torch.equal(first, second)


def test_unchanged_views_are_the_pictures_themselves() -> None:
    squares = torch.randint(0, 256, (64, 24, 24, 3), dtype=torch.uint8)
    still = Views(area=1.0, degrees=0.0, light=0.0, erase=0.0)
    seen = crops(squares, torch.ones(64), 24, still, torch.Generator().manual_seed(1))
    images = squares.permute(0, 3, 1, 2).float()
    error = torch.minimum(
        (seen - images).abs().mean((1, 2, 3)), (seen - images.flip(3)).abs().mean((1, 2, 3))
    )
    # Proportions are still drawn, so few views are exact; the noise pictures' mean error is 85.
    assert float(error.min()) < 40


def test_mixed_targets_stay_distributions() -> None:
    generator = torch.Generator().manual_seed(5)
    images, targets = torch.rand(8, 3, 16, 16), torch.eye(8)
    kinds = set()
    for _ in range(20):
        mixed, shares = mix(images, targets, generator)
        torch.testing.assert_close(shares.sum(1), torch.ones(8))
        kinds.add(torch.equal(mixed, images))
    assert kinds == {True, False}
