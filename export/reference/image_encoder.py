"""The reference image tower: a small residual convnet that speaks the text tower's language.

In: `pixels` uint8 (B, 96, 96, 3), RGB, cut by the rule in `photos.py`. Out: `image_features`
float32 (B, 384), unit rows in the space of the MiniLM sentence embeddings. Normalisation is part
of the graph, so that serving hands over plain bytes.
"""

from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.reference.weights import load_weights

SIZE = 96
DIM = 384
STAGES = ((32, 1), (64, 2), (128, 2), (256, 3))  # (channels, blocks); each stage halves the side
_MEAN = (0.485, 0.456, 0.406)  # ImageNet's statistics, as everywhere in the field
_STD = (0.229, 0.224, 0.225)


class Block(nn.Module):
    """A residual block of two 3 x 3 convolutions (He et al. 2015), average-pooled shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.norm2.weight)  # starts as the identity
        shortcut: list[nn.Module] = [nn.AvgPool2d(2)] if stride == 2 else []
        if inputs != outputs:
            shortcut += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ImageEncoder(nn.Module):
    """Pixels to unit features in the text tower's space."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        channels = STAGES[0][0]
        self.stem = nn.Conv2d(3, channels, 3, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        blocks: list[nn.Module] = []
        for number, (width, depth) in enumerate(STAGES):
            for index in range(depth):
                blocks.append(Block(channels, width, 2 if number and index == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        # Centred first: rectified features share one large direction, which cosines would only see.
        self.neck = nn.BatchNorm1d(channels)
        self.head = nn.Linear(channels, DIM)
        self.register_buffer("mean", torch.tensor(_MEAN).mul(255), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).mul(255), persistent=False)

    def embed(self, image: Tensor) -> Tensor:
        """Normalised float images (B, 3, 96, 96) -> unit float32 features (B, 384)."""
        x = F.relu(self.stem_norm(self.stem(image)))
        x = self.blocks(x).mean(dim=(2, 3))
        return F.normalize(self.head(self.neck(x)).float(), dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels uint8 (B, 96, 96, 3) -> unit float32 features (B, 384)."""
        image = (pixels.float() - self.mean) / self.std
        return self.embed(image.permute(0, 3, 1, 2))

    @classmethod
    def from_weights(cls, path: str | Path | None = None) -> Self:
        """The shipped weights, or those of a safetensors file; in eval mode.

        Raises: `ReferenceModelError` when the file is absent or does not fit.
        """
        model = cls()
        load_weights(model, path, "image_encoder")
        return model.eval()
