"""The drawn objects as data: polygons in the unit square, so that any turn or size is one product.

An object is a tuple of `Part(points (n, 2) float64, x to the right and y down in [0, 1], role)`;
the role says which colour the part takes: the object's own (`main`, `shade`, `light`) or a fixed
one (`dark`, `white`, `red`, `gold`, `glass`, `wood`, `ember`, `steel`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


class Part(NamedTuple):
    """One filled polygon of an object."""

    points: Points
    role: str


def _poly(role: str, *xy: float) -> Part:
    return Part(np.array(xy, dtype=np.float64).reshape(-1, 2), role)


def _rect(role: str, x0: float, y0: float, x1: float, y1: float) -> Part:
    return _poly(role, x0, y0, x1, y0, x1, y1, x0, y1)


def _ellipse(role: str, cx: float, cy: float, rx: float, ry: float) -> Part:
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return Part(np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1), role)


def _burst(role: str, cx: float, cy: float, outer: float, inner: float) -> Part:
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    radius = np.where(np.arange(28) % 2, inner, outer)
    return Part(np.stack([cx + radius * np.cos(angle), cy + radius * np.sin(angle)], axis=1), role)


# A top's outline, from the neck down the right side: torso, with the sleeves as separate parts.
_TORSO = _poly("main", 0.36, 0.1, 0.64, 0.1, 0.76, 0.17, 0.74, 0.92, 0.26, 0.92, 0.24, 0.17)
_NECK = _ellipse("shade", 0.5, 0.11, 0.12, 0.06)
_SHORT_SLEEVES = (
    _poly("main", 0.26, 0.15, 0.04, 0.36, 0.15, 0.48, 0.28, 0.38),
    _poly("main", 0.74, 0.15, 0.96, 0.36, 0.85, 0.48, 0.72, 0.38),
)
_LONG_SLEEVES = (
    _poly("main", 0.26, 0.15, 0.12, 0.3, 0.02, 0.82, 0.13, 0.86, 0.28, 0.42),
    _poly("main", 0.74, 0.15, 0.88, 0.3, 0.98, 0.82, 0.87, 0.86, 0.72, 0.42),
)
_COLLAR = (
    _poly("light", 0.5, 0.22, 0.35, 0.08, 0.44, 0.06, 0.5, 0.12),
    _poly("light", 0.5, 0.22, 0.65, 0.08, 0.56, 0.06, 0.5, 0.12),
)
_BUTTONS = tuple(_ellipse("dark", 0.5, y, 0.018, 0.018) for y in (0.32, 0.46, 0.6, 0.74, 0.86))


def _die(x: float, y: float, size: float, pips: int) -> tuple[Part, ...]:
    spots = {
        5: ((0.25, 0.25), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0.75, 0.75)),
        3: ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75)),
    }[pips]
    return (
        _rect("dark", x - 0.015, y - 0.015, x + size + 0.015, y + size + 0.015),
        _rect("white", x, y, x + size, y + size),
        *(_ellipse("red", x + size * a, y + size * b, size * 0.1, size * 0.1) for a, b in spots),
    )


def _coin_stack(x: float, base: float, height: int) -> tuple[Part, ...]:
    coins: list[Part] = []
    for level in range(height):
        y = base - 0.09 * level
        coins += [_ellipse("wood", x, y + 0.03, 0.13, 0.06), _ellipse("gold", x, y, 0.13, 0.06)]
    return tuple(coins)


SHAPES: dict[str, tuple[Part, ...]] = {
    "t-shirt": (*_SHORT_SLEEVES, _TORSO, _NECK),
    "longsleeve": (*_LONG_SLEEVES, _TORSO, _NECK),
    "shirt": (
        *_LONG_SLEEVES,
        _TORSO,
        _rect("shade", 0.485, 0.18, 0.515, 0.92),
        *_COLLAR,
        *_BUTTONS,
    ),
    "outwear": (
        *(Part((p.points - 0.5) * [1.0, 1.06] + 0.5, "main") for p in _LONG_SLEEVES),
        _poly("main", 0.3, 0.08, 0.7, 0.08, 0.8, 0.16, 0.8, 0.96, 0.2, 0.96, 0.2, 0.16),
        _poly("dark", 0.46, 0.1, 0.54, 0.1, 0.58, 0.96, 0.42, 0.96),
        _poly("shade", 0.3, 0.02, 0.7, 0.02, 0.62, 0.2, 0.38, 0.2),
        _rect("dark", 0.25, 0.6, 0.38, 0.64),
        _rect("dark", 0.62, 0.6, 0.75, 0.64),
    ),
    "dress": (
        _poly("main", 0.36, 0.04, 0.42, 0.04, 0.44, 0.14, 0.56, 0.14, 0.58, 0.04, 0.64, 0.04),
        _poly("main", 0.35, 0.1, 0.65, 0.1, 0.6, 0.4, 0.86, 0.96, 0.14, 0.96, 0.4, 0.4),
        _poly("shade", 0.395, 0.37, 0.605, 0.37, 0.6, 0.43, 0.4, 0.43),
        _poly("shade", 0.5, 0.5, 0.53, 0.94, 0.47, 0.94),
    ),
    "skirt": (
        _poly("main", 0.32, 0.24, 0.68, 0.24, 0.9, 0.84, 0.1, 0.84),
        _rect("shade", 0.31, 0.18, 0.69, 0.26),
        _poly("shade", 0.42, 0.3, 0.44, 0.3, 0.36, 0.83, 0.32, 0.83),
        _poly("shade", 0.58, 0.3, 0.56, 0.3, 0.64, 0.83, 0.68, 0.83),
    ),
    "pants": (
        _poly("main", 0.3, 0.06, 0.7, 0.06, 0.76, 0.96, 0.58, 0.96, 0.5, 0.36),
        _poly("main", 0.3, 0.06, 0.7, 0.06, 0.5, 0.36, 0.42, 0.96, 0.24, 0.96),
        _rect("shade", 0.3, 0.04, 0.7, 0.1),
    ),
    "shorts": (
        _poly("main", 0.26, 0.24, 0.74, 0.24, 0.88, 0.72, 0.56, 0.76, 0.5, 0.5),
        _poly("main", 0.26, 0.24, 0.74, 0.24, 0.5, 0.5, 0.44, 0.76, 0.12, 0.72),
        _rect("shade", 0.26, 0.2, 0.74, 0.28),
    ),
    "shoes": (
        _poly("main", 0.06, 0.34, 0.3, 0.3, 0.4, 0.44, 0.66, 0.54, 0.92, 0.6, 0.95, 0.7, 0.06, 0.7),
        _rect("white", 0.05, 0.68, 0.96, 0.75),
        _rect("shade", 0.06, 0.3, 0.3, 0.36),
        *(
            _poly("white", x, y, x + 0.09, y - 0.06, x + 0.11, y - 0.03, x + 0.02, y + 0.03)
            for x, y in ((0.36, 0.5), (0.45, 0.54), (0.54, 0.57))
        ),
    ),
    "hat": (
        _ellipse("main", 0.5, 0.66, 0.46, 0.13),
        _poly("main", 0.27, 0.64, 0.3, 0.34, 0.4, 0.26, 0.6, 0.26, 0.7, 0.34, 0.73, 0.64),
        _poly("dark", 0.272, 0.6, 0.28, 0.52, 0.72, 0.52, 0.728, 0.6),
    ),
    "mug": (
        _ellipse("shade", 0.74, 0.52, 0.17, 0.19),
        _ellipse("white", 0.74, 0.52, 0.1, 0.12),
        _rect("main", 0.22, 0.25, 0.72, 0.82),
        _ellipse("shade", 0.47, 0.25, 0.25, 0.06),
    ),
    "bag": (
        _ellipse("shade", 0.5, 0.36, 0.2, 0.24),
        _ellipse("white", 0.5, 0.36, 0.15, 0.19),
        _poly("main", 0.14, 0.38, 0.86, 0.38, 0.94, 0.88, 0.06, 0.88),
        _rect("gold", 0.45, 0.44, 0.55, 0.52),
    ),
    "phone": (
        _rect("main", 0.28, 0.06, 0.72, 0.94),
        _rect("glass", 0.32, 0.13, 0.68, 0.82),
        _ellipse("white", 0.5, 0.88, 0.035, 0.035),
    ),
    "lamp": (
        _rect("dark", 0.48, 0.45, 0.52, 0.88),
        _ellipse("dark", 0.5, 0.9, 0.2, 0.05),
        _poly("main", 0.34, 0.1, 0.66, 0.1, 0.84, 0.5, 0.16, 0.5),
    ),
    "watch": (
        _poly("main", 0.4, 0.02, 0.6, 0.02, 0.63, 0.98, 0.37, 0.98),
        _ellipse("dark", 0.5, 0.5, 0.27, 0.27),
        _ellipse("white", 0.5, 0.5, 0.22, 0.22),
        _rect("dark", 0.49, 0.33, 0.51, 0.5),
        _rect("dark", 0.5, 0.49, 0.62, 0.51),
    ),
    "book": (
        _rect("main", 0.16, 0.1, 0.8, 0.9),
        _rect("white", 0.8, 0.13, 0.86, 0.9),
        _rect("shade", 0.16, 0.1, 0.24, 0.9),
        _rect("white", 0.34, 0.24, 0.7, 0.34),
    ),
    "bottle": (
        _rect("green", 0.43, 0.06, 0.57, 0.34),
        _poly("green", 0.43, 0.3, 0.57, 0.3, 0.68, 0.46, 0.68, 0.96, 0.32, 0.96, 0.32, 0.46),
        _rect("gold", 0.42, 0.03, 0.58, 0.09),
        _rect("white", 0.32, 0.56, 0.68, 0.8),
        _rect("red", 0.36, 0.64, 0.64, 0.7),
    ),
    "wine_glass": (
        _ellipse("glass", 0.5, 0.3, 0.25, 0.3),
        _rect("glass", 0.47, 0.55, 0.53, 0.92),
        _ellipse("glass", 0.5, 0.93, 0.2, 0.045),
        _poly("wine", 0.27, 0.26, 0.73, 0.26, 0.66, 0.5, 0.5, 0.58, 0.34, 0.5),
    ),
    "beer_mug": (
        _ellipse("glass", 0.78, 0.56, 0.17, 0.2),
        _ellipse("dark", 0.78, 0.56, 0.1, 0.13),
        _rect("gold", 0.2, 0.26, 0.72, 0.92),
        *(_rect("ember", x, 0.36, x + 0.04, 0.84) for x in (0.3, 0.44, 0.58)),
        *(_ellipse("white", x, 0.22, 0.13, 0.1) for x in (0.26, 0.46, 0.66)),
    ),
    "cigarette": (
        _rect("white", 0.24, 0.6, 0.86, 0.72),
        _rect("ember", 0.02, 0.6, 0.26, 0.72),
        _rect("red", 0.86, 0.6, 0.93, 0.72),
        _rect("dark", 0.93, 0.61, 0.98, 0.71),
        _poly("steel", 0.94, 0.56, 0.86, 0.42, 0.95, 0.28, 0.88, 0.08, 0.99, 0.28, 0.91, 0.42),
    ),
    "cigarette_pack": (
        _rect("white", 0.24, 0.3, 0.76, 0.96),
        _poly("red", 0.24, 0.3, 0.76, 0.3, 0.76, 0.62, 0.5, 0.46, 0.24, 0.62),
        *(_rect("white", x, 0.1, x + 0.1, 0.3) for x in (0.3, 0.43, 0.56)),
        *(_rect("ember", x, 0.06, x + 0.1, 0.16) for x in (0.3, 0.43, 0.56)),
        _rect("dark", 0.3, 0.78, 0.7, 0.84),
    ),
    "dice": (*_die(0.06, 0.4, 0.42, 5), *_die(0.54, 0.16, 0.38, 3)),
    "cards": (
        _poly("dark", 0.08, 0.2, 0.5, 0.06, 0.72, 0.74, 0.3, 0.9),
        _poly("white", 0.1, 0.21, 0.49, 0.08, 0.7, 0.73, 0.31, 0.88),
        _rect("dark", 0.47, 0.18, 0.95, 0.93),
        _rect("white", 0.49, 0.2, 0.93, 0.91),
        _poly("red", 0.71, 0.36, 0.86, 0.55, 0.71, 0.76, 0.56, 0.55),
        _poly("red", 0.26, 0.26, 0.34, 0.34, 0.3, 0.46, 0.22, 0.38),
    ),
    "chips": (
        *(
            part
            for cx, cy, role in ((0.34, 0.62, "red"), (0.66, 0.4, "blue"))
            for part in (
                _ellipse("white", cx, cy, 0.3, 0.3),
                *(
                    _poly(
                        role,
                        cx,
                        cy,
                        cx + 0.3 * np.cos(a),
                        cy + 0.3 * np.sin(a),
                        cx + 0.3 * np.cos(a + 0.5),
                        cy + 0.3 * np.sin(a + 0.5),
                    )
                    for a in np.arange(6) * np.pi / 3
                ),
                _ellipse(role, cx, cy, 0.2, 0.2),
                _ellipse("white", cx, cy, 0.12, 0.12),
            )
        ),
    ),
    "knife": (
        _poly("steel", 0.04, 0.44, 0.16, 0.38, 0.62, 0.38, 0.62, 0.54, 0.2, 0.54),
        _rect("dark", 0.6, 0.3, 0.65, 0.62),
        _rect("dark", 0.65, 0.39, 0.97, 0.53),
    ),
    "pistol": (
        _rect("dark", 0.06, 0.26, 0.92, 0.44),
        _poly("dark", 0.66, 0.4, 0.9, 0.4, 0.97, 0.86, 0.74, 0.86),
        _ellipse("dark", 0.58, 0.5, 0.12, 0.11),
        _ellipse("steel", 0.58, 0.5, 0.07, 0.06),
        _rect("steel", 0.1, 0.3, 0.5, 0.33),
    ),
    "coins": (*_coin_stack(0.18, 0.84, 3), *_coin_stack(0.5, 0.84, 5), *_coin_stack(0.82, 0.84, 8)),
    "chart": (
        *(
            _rect("green", x, 0.92 - h, x + 0.14, 0.92)
            for x, h in ((0.08, 0.18), (0.3, 0.32), (0.52, 0.48), (0.74, 0.66))
        ),
        _poly(
            "red", 0.04, 0.62, 0.7, 0.16, 0.64, 0.08, 0.94, 0.04, 0.84, 0.32, 0.76, 0.24, 0.08, 0.7
        ),
    ),
    "pills": (
        *(
            part
            for x, y in ((0.08, 0.2), (0.3, 0.44), (0.08, 0.68))
            for part in (
                _ellipse("red", x + 0.1, y + 0.1, 0.1, 0.1),
                _rect("red", x + 0.1, y, x + 0.3, y + 0.2),
                _rect("white", x + 0.3, y, x + 0.48, y + 0.2),
                _ellipse("white", x + 0.48, y + 0.1, 0.1, 0.1),
            )
        ),
    ),
    "syringe": (
        _rect("glass", 0.26, 0.4, 0.74, 0.6),
        _rect("red", 0.26, 0.43, 0.54, 0.57),
        _rect("steel", 0.02, 0.485, 0.26, 0.515),
        _rect("dark", 0.72, 0.34, 0.76, 0.66),
        _rect("steel", 0.74, 0.47, 0.94, 0.53),
        _rect("dark", 0.92, 0.36, 0.97, 0.64),
    ),
    "burst": (_burst("red", 0.5, 0.5, 0.5, 0.38), _burst("gold", 0.5, 0.5, 0.42, 0.33)),
}
