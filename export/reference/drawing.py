"""Draws one creative: background, product, props, and what spoils a picture.

In: a `Scene` (what is to be seen) and a random generator. Out: a 160 x 160 RGB `PIL.Image`.
Everything is drawn at twice the size and reduced, which is all the anti-aliasing needed.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from export.reference.labels import COLOURS, PROPS
from export.reference.shapes import SHAPES

SIZE = 160
_CANVAS = 2 * SIZE
_FIXED: dict[str, tuple[int, int, int]] = {
    "dark": (36, 34, 38),
    "white": (250, 250, 248),
    "red": (214, 30, 36),
    "gold": (246, 196, 44),
    "glass": (196, 226, 236),
    "wood": (150, 104, 20),
    "ember": (226, 150, 70),
    "steel": (160, 168, 178),
    "green": (24, 96, 50),
    "blue": (36, 70, 180),
    "wine": (124, 16, 44),
}
_STICKERS = ("SALE", "NEW", "-50%", "HOT", "2x1", "WOW", "FREE")
_BUTTONS = ("DOWNLOAD", "PLAY NOW", "X CLOSE", "START", "OK")
_BURSTS = ("#1", "100%", "BEST", "No.1")

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows.

    Attributes:
        product: class name, a key of `SHAPES`.
        colour: a key of `COLOURS`; the product's colour.
        props: names of objects beside the product, keys of `SHAPES`.
        flaws: subset of `labels.EXPERIENCE` that the picture itself suffers from.
    """

    product: str
    colour: str
    props: tuple[str, ...]
    flaws: tuple[str, ...]


def draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draws `scene`; the same generator state gives the same pixels.

    Returns: RGB image of 160 x 160 pixels.
    """
    main = _jitter(COLOURS[scene.colour], rng, 14)
    image = Image.new("RGB", (_CANVAS, _CANVAS), _background(main, rng))
    pen = ImageDraw.Draw(image)
    _pattern(pen, image.getpixel((0, 0)), rng)
    crowded = bool(scene.props)
    size = rng.uniform(0.56, 0.7) if crowded else rng.uniform(0.62, 0.92)
    shift = 0.12 if crowded else 0.0
    centre = (0.5 - shift + rng.uniform(-0.05, 0.05), 0.5 + rng.uniform(-0.05, 0.05))
    _place(pen, scene.product, centre, size, rng.normal(0, 8), main)
    corners = rng.permutation(np.array([[0.75, 0.74], [0.75, 0.27], [0.26, 0.76]]))
    for prop, corner in zip(scene.props, corners, strict=False):
        where = corner + rng.uniform(-0.03, 0.03, 2)
        extent = rng.uniform(0.36, 0.46)
        _place(pen, prop, (where[0], where[1]), extent, rng.normal(0, 10), main)
        if prop == "burst":
            _text(pen, str(rng.choice(_BURSTS)), (where[0], where[1]), 40, _FIXED["dark"])
    if "clutter" in scene.flaws:
        _clutter(pen, rng)
    if "misleading_button" in scene.flaws:
        _button(pen, rng)
    image = image.reduce(2)
    return _spoil(image, rng) if "low_quality" in scene.flaws else image


def _jitter(colour: Colour, rng: np.random.Generator, amount: int) -> Colour:
    r, g, b = np.clip(np.array(colour) + rng.integers(-amount, amount + 1, 3), 0, 255).tolist()
    return r, g, b


def _shade(colour: Colour, factor: float) -> Colour:
    r, g, b = np.clip(np.array(colour) * factor, 0, 255).astype(int).tolist()
    return r, g, b


def _background(main: Colour, rng: np.random.Generator) -> Colour:
    """A pale or dim colour that the product stands out from."""
    while True:
        base = np.array(rng.choice([1.0, 0.86, 0.3], p=[0.55, 0.3, 0.15])) * 255
        r, g, b = np.clip(base + rng.integers(-36, 20, 3), 0, 255).astype(int).tolist()
        if abs(r - main[0]) + abs(g - main[1]) + abs(b - main[2]) > 110:
            return r, g, b


def _pattern(pen: ImageDraw.ImageDraw, ground: object, rng: np.random.Generator) -> None:
    """A floor, stripes or nothing, a little darker or lighter than the ground."""
    if not isinstance(ground, tuple):
        return
    r, g, b = ground
    tone = _shade((int(r), int(g), int(b)), float(rng.uniform(0.86, 1.1)))
    kind = rng.integers(4)
    if kind == 0:
        pen.rectangle((0, int(_CANVAS * rng.uniform(0.6, 0.85)), _CANVAS, _CANVAS), fill=tone)
    elif kind == 1:
        step = int(rng.integers(24, 60))
        for x in range(0, _CANVAS, step):
            pen.rectangle((x, 0, x + step // 2, _CANVAS), fill=tone)
    elif kind == 2:
        x, y = rng.uniform(0.2, 0.8, 2) * _CANVAS
        radius = rng.uniform(0.3, 0.6) * _CANVAS
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tone)


def _place(
    pen: ImageDraw.ImageDraw,
    name: str,
    centre: tuple[float, float],
    size: float,
    degrees: float,
    main: Colour,
) -> None:
    """Draws an object of `size` (share of the canvas) turned by `degrees`."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    own = {"main": main, "shade": _shade(main, 0.72), "light": _shade(main, 1.25)}
    for part in SHAPES[name]:
        points = ((part.points - 0.5) @ turn * size + centre) * _CANVAS
        pen.polygon(points.ravel().tolist(), fill=own.get(part.role) or _FIXED[part.role])


def _text(
    pen: ImageDraw.ImageDraw, words: str, centre: tuple[float, float], size: int, colour: Colour
) -> None:
    pen.text(
        (centre[0] * _CANVAS, centre[1] * _CANVAS),
        words,
        fill=colour,
        font=_font(size),
        anchor="mm",
    )


_FONTS: dict[int, ImageFont.FreeTypeFont | ImageFont.ImageFont] = {}


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, kept: opening it costs more than drawing with it."""
    if size not in _FONTS:
        _FONTS[size] = ImageFont.load_default(size)
    return _FONTS[size]


def _clutter(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """A dozen stickers of clashing colours all over the picture."""
    tones = [c for name, c in COLOURS.items() if name not in ("black", "white", "grey", "brown")]
    for _ in range(int(rng.integers(10, 15))):
        x, y = rng.uniform(0.08, 0.92, 2)
        half_w, half_h = rng.uniform(0.07, 0.11) * _CANVAS, rng.uniform(0.04, 0.07) * _CANVAS
        box = (
            x * _CANVAS - half_w,
            y * _CANVAS - half_h,
            x * _CANVAS + half_w,
            y * _CANVAS + half_h,
        )
        pen.rectangle(box, fill=tones[int(rng.integers(len(tones)))], outline=_FIXED["dark"])
        _text(pen, str(rng.choice(_STICKERS)), (x, y), 20, _FIXED["dark"])


def _button(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """A thing that looks like a control of the page: a rounded, glossy bar with a command."""
    y = rng.uniform(0.78, 0.88)
    x = rng.uniform(0.45, 0.55)
    tone = (40, 180, 70) if rng.random() < 0.6 else (40, 120, 230)
    box = ((x - 0.34) * _CANVAS, (y - 0.09) * _CANVAS, (x + 0.34) * _CANVAS, (y + 0.09) * _CANVAS)
    pen.rounded_rectangle(box, radius=24, fill=tone, outline=_FIXED["white"], width=6)
    _text(pen, str(rng.choice(_BUTTONS)), (x, y), 38, _FIXED["white"])


def _spoil(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Out of focus, or blown up from a thumbnail."""
    if rng.random() < 0.5:
        return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(4.0, 6.0))))
    small = int(rng.integers(14, 22))
    return image.resize((small, small), Image.Resampling.BOX).resize(
        (SIZE, SIZE), Image.Resampling.NEAREST
    )


def prop_label(prop: str) -> str:
    """The label that an object gives away, e.g. `dice` -> `gambling`."""
    return next(label for label, names in PROPS.items() if prop in names)
