"""Moving pictures: which frames are seen, and how these become one vector."""

import io

import numpy as np
import pytest
from PIL import Image

from serving.errors import InvalidImageError
from serving.frames import FRAMES, mean
from serving.image import decode


def encoded(frames: list[Image.Image], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


def film(count: int, kind: str, side: int = 8) -> bytes:
    """Frames that go from black to red in even steps."""
    shades = [
        Image.new("RGB", (side, side), (at * 255 // (count - 1), 0, 0)) for at in range(count)
    ]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    return encoded(shades, kind, duration=50, **lossless)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_animations_evenly_spaced_frames_are_seen(kind: str) -> None:
    image = decode(film(15, kind))
    reds = [int(frame[4, 4, 0]) for frame in image.frames]
    assert len(reds) == FRAMES
    assert image.pixels is image.frames[0]
    assert reds[0] == 0
    assert reds[-1] == 255
    assert np.allclose(np.diff(reds), 255 / 7, atol=3)
    few = [int(frame[4, 4, 0]) for frame in decode(film(3, kind)).frames]
    assert few == pytest.approx([0, 127, 255], abs=1)


def test_of_a_long_film_only_as_much_as_may_be_decoded_is_seen() -> None:
    image = decode(film(40, "GIF"), max_pixels=20 * 64)
    assert [int(frame[4, 4, 0]) for frame in image.frames][-1] == 19 * 255 // 39
    assert len(decode(film(40, "GIF"), max_pixels=100).frames) == 1


def test_pages_of_a_tiff_are_no_frames() -> None:
    assert len(decode(film(4, "TIFF")).frames) == 1


def test_a_film_cut_short_is_refused() -> None:
    random = np.random.default_rng(0)
    noise = [Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(6)]
    whole = encoded(noise, "WEBP", lossless=True)
    assert len(decode(whole).frames) == 6
    with pytest.raises(InvalidImageError):
        decode(whole[: len(whole) * 2 // 3])


def test_frames_become_one_unit_row_and_stills_stay_as_they_are() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(6, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[5] = -rows[4]  # two frames that cancel
    found = mean(rows, [1, 3, 2])
    assert np.array_equal(found[0], rows[0])
    both = rows[1:4].mean(0)
    assert np.allclose(found[1], both / np.linalg.norm(both), atol=1e-6)
    assert np.array_equal(found[2], rows[4])
    assert mean(rows[:0], []).shape == (0, 16)
