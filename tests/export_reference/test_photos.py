from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.reference.errors import ReferenceModelError
from export.reference.photos import cut, open_folder, read_rgb


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (96, 96), (1, 1), (3000, 20)])
def test_every_shape_is_cut_to_a_square(size: tuple[int, int]) -> None:
    assert cut(Image.new("RGB", size, (10, 20, 30))).shape == (96, 96, 3)


def test_the_middle_is_kept() -> None:
    image = Image.new("RGB", (100, 300), (0, 0, 0))
    image.paste((255, 255, 255), (0, 100, 100, 200))
    pixels = cut(image)
    assert pixels.mean() > 250
    assert pixels.dtype == np.uint8


def test_a_photo_lying_on_its_side_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_rgb(tmp_path / "a.jpg").size == (20, 40)


def test_text_named_jpg_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(ReferenceModelError, match=r"a\.jpg is not a picture"):
        read_rgb(tmp_path / "a.jpg")


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceModelError, match="found none"):
        open_folder(tmp_path / "absent")
    (tmp_path / "dress").mkdir()
    with pytest.raises(ReferenceModelError, match="expected pictures at"):
        open_folder(tmp_path)


def test_classes_and_labels(drawn_photos: Path) -> None:
    folder = open_folder(drawn_photos)
    assert list(folder.classes) == sorted(folder.classes)
    assert all(
        file.parent.name == folder.classes[label]
        for file, label in zip(folder.files, folder.labels, strict=True)
    )
