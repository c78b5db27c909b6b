"""Pictures that strangers send, made into arrays that image towers take.

In: the bytes of a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file. Out: RGB uint8 pixels, upright, on
white; of a moving picture, some frames (`serving.frames`). The size is read from the header and
refused before anything is decompressed, so a small file cannot make a huge allocation. Decoding
runs in threads of its own (`ImagePool`): the event loop that answers health checks never waits.
"""

import asyncio
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from serving import frames
from serving.errors import InvalidImageError

# Only formats that Pillow decodes in memory; EPS and its like start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS = 50_000_000
# A JPEG is scaled down while it is decoded to no less than this many times the size asked for, so
# that the final bicubic step still has pixels to average (as Image.thumbnail does).
REDUCING_GAP = 2.0
# The filters that preprocessors of image towers name (Pillow's codes 0, 1, 2, 3).
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# What Pillow's decoders raise on damaged input; they promise no single type. Warnings are here for
# processes that turn them into errors.
_DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)

# EXIF 2.32, tag 0x0112: how the camera was held, and the turn that undoes it.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Target:
    """What a tower's pixels must be: their size, and how a picture of another shape gets there.

    stretch: every side is scaled by itself (SigLIP); otherwise the picture covers the size and its
    centre is cut out (CLIP).
    """

    height: int
    width: int
    stretch: bool = False
    filter: Image.Resampling = Image.Resampling.BICUBIC

    @classmethod
    def of(cls, height: int, width: int, rule: object = None) -> "Target":
        """From a bundle: `rule` is its metadata `resize`, which says in words what to do."""
        words = rule.lower() if isinstance(rule, str) else ""
        named = next((name for name in _FILTERS if name in words), "bicubic")
        return cls(height, width, "stretch" in words, _FILTERS[named])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One upright picture.

    pixels: uint8 (h, w, 3) RGB. source: (width, height) written in the file; pixels may be fewer
    when the caller named the size it needs. later: of a moving picture, the frames after the first.
    """

    pixels: NDArray[np.uint8]
    source: tuple[int, int]
    later: tuple[NDArray[np.uint8], ...] = ()

    @property
    def frames(self) -> tuple[NDArray[np.uint8], ...]:
        """The first frame and those after it: what is embedded."""
        return self.pixels, *self.later


def decode(
    data: bytes, *, size: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> DecodedImage:
    """Decode `data`; `size` (height, width) lets a JPEG be scaled down while it is decoded.

    Raises InvalidImageError.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise _too_large(f"{width} x {height} px", max_pixels)
            if width == 0 or height == 0:
                raise InvalidImageError("expected an image with pixels; found none")
            if size is not None and image.format == "JPEG":
                side = int(max(size) * REDUCING_GAP)
                image.draft(None, (side, side))
            image.load()
            pixels = np.asarray(_rgb(_upright(image)))
            later = [_frame(image, at) for at in frames.chosen(image, max_pixels)[1:]]
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("far more", max_pixels) from error
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise InvalidImageError(f"expected one of {kinds}; found none of them") from error
    except _DAMAGED as error:
        raise InvalidImageError(f"the image is damaged or cut short: {error}") from error
    return DecodedImage(pixels, (width, height), tuple(later))


def _frame(image: Image.Image, at: int) -> NDArray[np.uint8]:
    image.seek(at)
    return np.asarray(_rgb(_upright(image)))


def fitted(image: DecodedImage, target: Target) -> DecodedImage:
    """Every frame brought to the target's size, as `fit` brings the first."""
    first, *later = (_fit(pixels, target) for pixels in image.frames)
    return DecodedImage(first, image.source, tuple(later))


def fit(image: DecodedImage, target: Target) -> NDArray[np.uint8]:
    """Bring a picture, the first frame of a moving one, to the target's size: uint8 (H, W, 3).

    Not stretched, it is "shorter side to the size, then centre crop", the rule of CLIP's
    preprocessing; only the part that stays is computed, so a 1 x 1,000,000 px strip costs nothing.
    """
    return _fit(image.pixels, target)


def _fit(pixels: NDArray[np.uint8], target: Target) -> NDArray[np.uint8]:
    h, w = pixels.shape[:2]
    height, width = target.size
    if (h, w) == target.size:
        return pixels
    if target.stretch:
        box = (0.0, 0.0, float(w), float(h))
    else:
        scale = max(height / h, width / w)
        full_h, full_w = max(height, round(h * scale)), max(width, round(w * scale))
        top, left = (full_h - height) // 2, (full_w - width) // 2
        box = (
            left * w / full_w,
            top * h / full_h,
            min((left + width) * w / full_w, w),
            min((top + height) * h / full_h, h),
        )
    source = Image.fromarray(pixels)
    resized = source.resize((width, height), target.filter, box=box, reducing_gap=REDUCING_GAP)
    return np.asarray(resized)


class ImagePool:
    """Decodes in threads of its own; Pillow's decoders release the interpreter lock.

    threads: at most this many pictures are decoded at once.
    """

    def __init__(self, threads: int, *, max_pixels: int = MAX_PIXELS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="image")
        self._max_pixels = max_pixels

    async def run(
        self, data: bytes, make: Callable[[DecodedImage], _Made], *, size: tuple[int, int]
    ) -> _Made:
        """Decode off the event loop and give what `make` makes of the picture in the same thread.

        A few kilobytes that decode to a hundred megabytes are in memory only while a thread works
        on them. size: (height, width), as in `decode`. Raises InvalidImageError.
        """

        def work() -> _Made:
            return make(decode(data, size=size, max_pixels=self._max_pixels))

        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def decode(self, data: bytes, target: Target) -> DecodedImage:
        """`decode` and `fitted` off the event loop; raises what they raise."""
        return await self.run(data, lambda image: fitted(image, target), size=target.size)

    async def fit(self, images: Sequence[DecodedImage], target: Target) -> NDArray[np.uint8]:
        """Every frame of every image, fitted: uint8 (frames, height, width, 3)."""

        def stack() -> NDArray[np.uint8]:
            every = [frame for image in images for frame in image.frames]
            pixels = np.empty((len(every), *target.size, 3), np.uint8)
            for row, frame in enumerate(every):
                pixels[row] = _fit(frame, target)
            return pixels

        return await asyncio.get_running_loop().run_in_executor(self._pool, stack)

    def close(self) -> None:
        """Stop the threads; what is queued is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _too_large(found: str, limit: int) -> InvalidImageError:
    return InvalidImageError(
        f"expected at most {limit:,} pixels; found {found}; send a smaller image"
    )


def _upright(image: Image.Image) -> Image.Image:
    """Turn by the EXIF orientation; a damaged EXIF block is no reason to refuse the picture."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGED:
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: deep greys are scaled, not clipped, and transparency is laid on white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(np.asarray(image), image.mode))
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")


def _eight_bits(grey: NDArray[np.generic], mode: str) -> NDArray[np.uint8]:
    """16-bit, 32-bit and floating greys to uint8. (h, w) -> (h, w)"""
    values = np.nan_to_num(grey.astype(np.float32), posinf=0.0, neginf=0.0)
    if mode.startswith("I;16"):
        full = 65535.0
    else:  # the file does not say its range: the smallest usual one that holds the brightest pixel
        peak = float(values.max(initial=0.0))
        usual = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
        full = next((most for most in usual if peak <= most), peak)
    return np.clip(values * (255.0 / full), 0, 255).round().astype(np.uint8)
