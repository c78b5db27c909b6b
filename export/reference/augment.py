"""Batched training views on the CPU: random windows, flips, turns, light and mixing.

Windows are drawn on squeezed squares (see `photos.read_squashed`): a window of the picture's own
proportions and one of the whole squeezed picture are the two ends between which it is drawn, so
the tower sees both the serving cut and mild distortion.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Views:
    """How strongly training pictures are changed.

    Attributes:
        area: smallest window, as a share of the largest one.
        degrees: standard deviation of the turn.
        light: half width of brightness, contrast and saturation changes.
        erase: probability that a grey patch hides a part.
    """

    area: float = 0.4
    degrees: float = 6.0
    light: float = 0.3
    erase: float = 0.25


def crops(
    squares: Tensor, aspect: Tensor, size: int, views: Views, generator: torch.Generator
) -> Tensor:
    """Random views of squeezed pictures.

    Args:
        squares: uint8 (B, S, S, 3).
        aspect: float32 (B,), height over width of the originals.
        size: side of the views, in pixels.

    Returns: float32 (B, 3, size, size) in 0..255.
    """
    count = len(squares)
    draw = torch.rand((8, count), generator=generator)
    width, height = aspect.clamp(max=1.0), (1 / aspect).clamp(max=1.0)  # undistorted square window
    squeeze = draw[0] * draw[1]  # mostly undistorted
    width, height = width ** (1 - squeeze), height ** (1 - squeeze)
    scale = (views.area + (1 - views.area) * draw[2]).sqrt()
    ratio = torch.exp((draw[3] - 0.5) * 0.4)
    width, height = (width * scale * ratio).clamp(max=1.0), (height * scale / ratio).clamp(max=1.0)
    cx, cy = (draw[4] * 2 - 1) * (1 - width), (draw[5] * 2 - 1) * (1 - height)
    flip = torch.where(draw[6] < 0.5, -1.0, 1.0)
    angle = torch.randn(count, generator=generator) * (views.degrees * torch.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([width * cos * flip, -width * sin, cx], dim=1),
            torch.stack([height * sin * flip, height * cos, cy], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    images = squares.permute(0, 3, 1, 2).float()
    seen = F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _erase(_light(seen, views.light, generator), views.erase, generator)


def _light(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, each times 1 +- amount."""
    factor = 1 + (torch.rand((3, len(images), 1, 1, 1), generator=generator) * 2 - 1) * amount
    images = images * factor[0]
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * factor[1]
    middle = grey.mean(dim=(2, 3), keepdim=True)
    return (middle + (images - middle) * factor[2]).clamp(0, 255)


def _erase(images: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Hides a patch of up to a third of the side (random erasing, arXiv 1708.04896)."""
    size = images.shape[-1]
    draw = torch.rand((4, len(images)), generator=generator)
    for index in torch.nonzero(draw[0] < chance).flatten().tolist():
        side = int(size * (0.12 + 0.22 * float(draw[1, index])))
        top, left = (int(float(draw[axis, index]) * (size - side)) for axis in (2, 3))
        images[index, :, top : top + side, left : left + side] = 120.0
    return images


def mix(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mixup (arXiv 1710.09412) or CutMix (arXiv 1905.04899) of a batch with its own shuffle.

    Args:
        images: float32 (B, 3, H, W).
        targets: float32 (B, K), rows that sum to 1.

    Returns: mixed images and targets; every fourth batch is left as it is.
    """
    kind = float(torch.rand((), generator=generator))
    if kind < 0.25:
        return images, targets
    order = torch.randperm(len(images), generator=generator)
    if kind < 0.65:  # Beta(0.3, 0.3) by two gamma draws would need another generator; a power does
        share = 0.5 * float(torch.rand((), generator=generator)) ** 2
        mixed = images * (1 - share) + images[order] * share
    else:
        size = images.shape[-1]
        side = int(size * (0.5 * float(torch.rand((), generator=generator))) ** 0.5)
        top, left = torch.randint(0, size - side + 1, (2,), generator=generator).tolist()
        mixed = images.clone()
        window = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
        mixed[window] = images[order][window]
        share = side * side / (size * size)
    return mixed, targets * (1 - share) + targets[order] * share
