"""Pictures from outside: every kind that browsers and cameras make, and those that are none."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.errors import InvalidImageError
from serving.image import DecodedImage, ImagePool, Target, decode, fit

BICUBIC, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
STRETCHED = Target(48, 48, stretch=True)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def quarters() -> Image.Image:
    """64 x 32: red and green above, blue and white below."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32], pixels[:16, 32:] = RED, GREEN
    pixels[16:, :32], pixels[16:, 32:] = BLUE, WHITE
    return Image.fromarray(pixels)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """The colours of the four corners, rounded to pure ones."""
    spots = [pixels[2, 2], pixels[2, -3], pixels[-3, 2], pixels[-3, -3]]
    return [tuple(int(c > 127) * 255 for c in spot) for spot in spots]


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises width x height pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_each_format_gives_its_colours(kind: str) -> None:
    image = decode(encoded(quarters(), kind))
    assert image.pixels.shape == (32, 64, 3)
    assert image.pixels.dtype == np.uint8
    assert corners(image.pixels) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    """Each file is stored as a camera held that way would store it, so all come out the same."""
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = quarters() if inverse is None else quarters().transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(stored, "JPEG", exif=exif, quality=95))
    assert image.pixels.shape == (32, 64, 3)
    assert corners(image.pixels) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("tag", [0, 9, 65535])
def test_impossible_orientations_change_nothing(tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    image = decode(encoded(quarters(), "JPEG", exif=exif, quality=95))
    assert corners(image.pixels) == [RED, GREEN, BLUE, WHITE]


def test_damaged_exif_is_ignored() -> None:
    image = decode(encoded(quarters(), "JPEG", exif=b"Exif\0\0garbage", quality=95))
    assert corners(image.pixels) == [RED, GREEN, BLUE, WHITE]


def test_cmyk_is_converted() -> None:
    image = decode(encoded(quarters().convert("CMYK"), "JPEG", quality=95))
    assert corners(image.pixels) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    pixels = decode(encoded(Image.fromarray(ramp), kind)).pixels
    assert np.array_equal(pixels[0, :, 0], np.arange(256))
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_float_grey_is_scaled() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(4, 0)
    assert np.array_equal(
        decode(encoded(Image.fromarray(ramp), "TIFF")).pixels[0, :, 1], np.arange(256)
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 8, 4))
    if mode == "P":
        data = encoded(picture.quantize(4), "PNG")
    else:
        data = encoded(picture.convert(mode), "PNG")
    pixels = decode(data).pixels
    assert tuple(pixels[1, 1]) == (0, 0, 0)
    assert tuple(pixels[6, 6]) == WHITE


def test_bilevel_and_palette_without_alpha() -> None:
    assert corners(decode(encoded(quarters().quantize(8), "PNG")).pixels) == [
        RED,
        GREEN,
        BLUE,
        WHITE,
    ]
    one = decode(encoded(Image.new("1", (4, 4), 1), "PNG"))
    assert tuple(one.pixels[0, 0]) == WHITE


@pytest.mark.parametrize("side", [30_000, 8_000])
def test_bombs_are_refused_by_their_header(side: int) -> None:
    data = png_header(side, side)
    assert len(data) < 200
    with pytest.raises(InvalidImageError, match="50,000,000 pixels"):
        decode(data)


def test_an_honest_picture_over_the_limit_is_refused() -> None:
    data = encoded(Image.new("RGB", (101, 100)), "PNG")
    assert decode(data).source == (101, 100)
    with pytest.raises(InvalidImageError, match="101 x 100"):
        decode(data, max_pixels=10_000)


@pytest.mark.parametrize(
    "data", [b"", b"hello, I am a text file named .jpg", b"%!PS-Adobe-3.0 EPSF"]
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidImageError, match="expected one of JPEG, PNG"):
        decode(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_truncated_files_are_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for part in (0.3, 0.6, 0.9):
        with pytest.raises(InvalidImageError):
            decode(data[: int(len(data) * part)])


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damage_is_an_error_of_ours_or_a_picture(kind: str, edits: list[tuple[float, int]]) -> None:
    data = bytearray(encoded(quarters(), kind))
    for place, value in edits:
        data[int(place * len(data))] = value
    try:
        image = decode(bytes(data), max_pixels=1_000_000)
    except InvalidImageError:
        return
    assert image.pixels.ndim == 3
    assert image.pixels.dtype == np.uint8


def test_fit_covers_and_cuts_the_centre() -> None:
    wide = np.zeros((96, 288, 3), np.uint8)
    wide[:, :96], wide[:, 96:192], wide[:, 192:] = RED, GREEN, BLUE
    cut = fit(DecodedImage(wide, (288, 96)), Target(96, 96))
    assert cut.shape == (96, 96, 3)
    assert corners(cut) == [GREEN] * 4
    tall = fit(DecodedImage(wide.transpose(1, 0, 2).copy(), (96, 288)), Target(48, 48))
    assert corners(tall) == [GREEN] * 4


def test_fit_is_resize_then_centre_crop() -> None:
    """The rule that reference preprocessing writes in two steps, up to rounding at the borders."""
    rng = np.random.default_rng(1)
    photo = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).resize((300, 200))
    whole = photo.resize((144, 96), Image.Resampling.BICUBIC)
    expected = np.asarray(whole.crop((24, 0, 120, 96))).astype(int)
    found = fit(DecodedImage(np.asarray(photo), photo.size), Target(96, 96)).astype(int)
    assert np.abs(found - expected)[:, 2:-2].max() <= 1
    assert np.abs(found - expected).mean() < 0.5


@settings(max_examples=60, deadline=None)
@given(
    h=st.integers(1, 200),
    w=st.integers(1, 200),
    height=st.integers(1, 64),
    width=st.integers(1, 64),
)
def test_fit_keeps_flat_colours_at_every_shape(h: int, w: int, height: int, width: int) -> None:
    flat = np.full((h, w, 3), 77, np.uint8)
    out = fit(DecodedImage(flat, (w, h)), Target(height, width))
    assert out.shape == (height, width, 3)
    assert np.abs(out.astype(int) - 77).max() <= 1


@pytest.mark.parametrize(
    ("rule", "stretch", "how"),
    [
        ("RGB, stretch to 96x96 (bilinear, antialiased)", True, Image.Resampling.BILINEAR),
        ("RGB, shorter side, centre crop to 96x96 (lanczos, antialiased)", False, LANCZOS),
        ("exif-transpose, RGB, shorter side to 96 (bicubic, antialiased)", False, BICUBIC),
        (None, False, BICUBIC),
    ],
)
def test_the_bundle_says_how_pictures_are_resized(
    rule: str | None, stretch: bool, how: Image.Resampling
) -> None:
    assert Target.of(96, 80, rule) == Target(96, 80, stretch, how)


def test_a_stretched_picture_keeps_its_edges() -> None:
    """As SigLIP's own preprocessing does it: both sides scaled, nothing cut."""
    rng = np.random.default_rng(2)
    photo = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).resize((300, 150))
    found = fit(DecodedImage(np.asarray(photo), photo.size), Target(96, 96, stretch=True))
    expected = np.asarray(photo.resize((96, 96), Image.Resampling.BICUBIC))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert corners(fit(DecodedImage(np.asarray(quarters()), (64, 32)), STRETCHED)) == [
        RED,
        GREEN,
        BLUE,
        WHITE,
    ]


def test_a_strip_is_fitted_without_a_huge_picture_between() -> None:
    strip = DecodedImage(np.full((1, 4_000_000, 3), 9, np.uint8), (4_000_000, 1))
    assert np.array_equal(fit(strip, Target(96, 96)), np.full((96, 96, 3), 9, np.uint8))


def test_a_size_shrinks_large_jpegs_only() -> None:
    photo = quarters().resize((1600, 800))
    small = decode(encoded(photo, "JPEG"), size=(96, 96))
    assert small.source == (1600, 800)
    assert small.pixels.shape == (200, 400, 3)
    assert decode(encoded(photo, "PNG"), size=(96, 96)).pixels.shape == (800, 1600, 3)


async def test_the_pool_decodes_and_fits() -> None:
    pool = ImagePool(2)
    try:
        target = Target(16, 32)
        kinds = ("PNG", "JPEG")
        images = [await pool.decode(encoded(quarters(), kind), target) for kind in kinds]
        assert [image.pixels.shape for image in images] == [(16, 32, 3)] * 2
        assert (await pool.fit(images, target)).shape == (2, 16, 32, 3)
        with pytest.raises(InvalidImageError):
            await pool.decode(b"no image", target)
    finally:
        pool.close()
