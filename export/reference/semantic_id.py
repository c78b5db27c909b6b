"""The reference semantic-ID tokenizer: a feature becomes six codes, and six codes a feature.

Three scales S, M, L of 256, 1,024 and 4,096 entries, each a centre and a residual level; the
scales are independent, so that S alone is already a whole, coarse ID. The search is done in a
PCA latent: fewer dimensions, less time. Residual k-means as in QARM (arXiv 2411.11739).
"""

from pathlib import Path
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.reference.weights import load_weights

SCALES = (("S", 256), ("M", 1024), ("L", 4096))
LEVELS = tuple(
    (f"{name}_{level}", size) for name, size in SCALES for level in ("centre", "residual")
)
DIM = 384
LATENT = 96


class SemanticId(nn.Module):
    """Codebooks, the projection to their latent, and the linear decoder.

    Attributes:
        mean: float32 (384,); basis: float32 (384, latent), orthonormal columns.
        entries: one float32 (K, latent) an entry of `LEVELS`.
        weight: float32 (3,), how much each scale's reconstruction counts in the decoder.
    """

    mean: Tensor
    basis: Tensor
    weight: Tensor

    def __init__(self, latent: int = LATENT) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(DIM))
        self.register_buffer("basis", torch.eye(DIM, latent))
        self.register_buffer("weight", torch.full((len(SCALES),), 1 / len(SCALES)))
        for name, size in LEVELS:
            self.register_buffer(name, torch.zeros(size, latent))

    def entries(self, level: int) -> Tensor:
        """The codebook of a level (0..5): float32 (K, latent)."""
        return cast(Tensor, getattr(self, LEVELS[level][0]))

    def latent(self, features: Tensor) -> Tensor:
        """Features float32 (B, 384) -> latent float32 (B, latent)."""
        return (features - self.mean) @ self.basis

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features float32 (B, 384) -> codes int32 (B, 6), margin float32 (B, 6).

        The margin is by how much the chosen entry's squared distance beats the second's, halved:
        near zero, the code may differ in another runtime.
        """
        h = self.latent(features)
        codes, margins = [], []
        residual = h
        for level in range(len(LEVELS)):
            if level % 2 == 0:
                residual = h
            table = self.entries(level)
            score = residual @ table.T - table.square().sum(1) / 2  # (B, K)
            best, index = score.topk(2, dim=1)
            codes.append(index[:, :1])
            margins.append(best[:, :1] - best[:, 1:])
            if level % 2 == 0:
                residual = residual - table[index[:, 0]]
        return torch.cat(codes, dim=1).to(torch.int32), torch.cat(margins, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes int32 (B, 6) -> features_hat float32 (B, 384), unit rows."""
        index = codes.long()
        parts = [self.entries(level)[index[:, level]] for level in range(len(LEVELS))]
        scales = [parts[i] + parts[i + 1] for i in range(0, len(LEVELS), 2)]
        h = sum((w * part for w, part in zip(self.weight, scales, strict=True)), self.weight[0] * 0)
        return F.normalize(h @ self.basis.T + self.mean, dim=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The same as `encode`."""
        return self.encode(features)

    @classmethod
    def from_weights(cls, path: str | Path | None = None) -> Self:
        """The shipped codebooks, or those of a safetensors file; in eval mode.

        Raises: `ReferenceModelError` when the file is absent or does not fit.
        """
        model = cls()
        load_weights(model, path, "semantic_id")
        return model.eval()
