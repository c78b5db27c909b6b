"""The tokenizer: a feature becomes six codes, and six codes become a feature again.

Why: rankers take discrete IDs. In: unit rows float32 (B, D). Out: codes int32 (B, 6) at three
scales S, M, L, each a centre and a residual level, with the margin of every choice; and back.
After MmDict (Baidu's ads): sparse activation a_j = <r, k_j> - |k_j|^2 / 2 + b_j, ID = argmax a_j.
S and M choose anew, told what L said (docs/decisions/0036-a-second-look.md and 0038).
"""

from pathlib import Path
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from export.reference.errors import ReferenceModelError
from export.reference.weights import SHIPPED, load_weights
from export.semantic_id.search import FINE, project, search, threshold

SCALES = ("S", "M", "L")
NAMES = tuple(f"{scale}_{level}" for scale in SCALES for level in ("centre", "residual"))
SIZES = (256, 256, 1024, 1024, 4096, 4096)
DIM = 384
LATENT = 96
# Of the scales before, this share is taken off before the next scale looks: 0 makes the scales
# independent, 1 one residual chain (docs/decisions/0034). Halves keep the arithmetic exact.
CARRY = 0.5


class SemanticId(nn.Module):
    """Codebooks, the projection to the latent that they are searched in, and the decoder's tables.

    Attributes:
        mean: float32 (D,); basis: float32 (D, latent); carry: float32 (), 0, 0.5 or 1.
        again: float32 (), how often S and M choose anew: 2; 1 if pairs taught the metric, and in
            older files; 0 in the first.
        keys, bias, values: of a level: float32 (K, latent) on the grid, (K,) and (K, D).
    """

    mean: Tensor
    basis: Tensor
    carry: Tensor
    again: Tensor

    def __init__(
        self, sizes: tuple[int, ...] = SIZES, dimension: int = DIM, latent: int = LATENT
    ) -> None:
        super().__init__()
        self.sizes, self.dimension = sizes, dimension
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("basis", torch.eye(dimension, latent))
        self.register_buffer("carry", torch.tensor(CARRY))
        self.register_buffer("again", torch.tensor(2.0))
        for name, size in zip(NAMES, sizes, strict=True):
            self.register_buffer(name, torch.zeros(size, latent))
            self.register_buffer(f"{name}_bias", torch.zeros(size))
            self.register_buffer(f"{name}_value", torch.zeros(size, dimension))

    def keys(self, level: int) -> Tensor:
        """What a level (0..5) compares with: float32 (K, latent)."""
        return cast(Tensor, getattr(self, NAMES[level]))

    def bias(self, level: int) -> Tensor:
        """What is added to the activation of every entry, zero for most: float32 (K,)."""
        return cast(Tensor, getattr(self, f"{NAMES[level]}_bias"))

    def values(self, level: int) -> Tensor:
        """What an entry adds to the reconstruction: float32 (K, D)."""
        return cast(Tensor, getattr(self, f"{NAMES[level]}_value"))

    def projection(self) -> tuple[Tensor, Tensor]:
        """Basis and mean's share of it, as integers in float64: (D, latent), (latent,)."""
        basis = (self.basis.double() * FINE).round()
        return basis, (self.mean.double() * FINE).round() @ basis / FINE

    def threshold(self, level: int) -> Tensor:
        """b_j - |k_j|^2 / 2, on the scores' grid: float32 (K,)."""
        return threshold(self.keys(level), self.bias(level))

    def tables(self) -> list[tuple[Tensor, Tensor]]:
        """What the search takes: entries and thresholds of every level."""
        return [(self.keys(level), self.threshold(level)) for level in range(len(NAMES))]

    def latent(self, features: Tensor) -> Tensor:
        """Unit rows float32 (B, D) -> float32 (B, latent) on the grid; the same in any batch."""
        return project(features, *self.projection())

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Unit rows float32 (B, D) -> codes int32 (B, 6), margin float32 (B, 6).

        The margin is by how much the chosen entry's activation beats the second's. Where two are
        equal, the lower index is chosen.
        """
        return search(self.latent(features), self.tables(), float(self.carry), int(self.again))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes int32 (B, 6) -> features_hat float32 (B, D), unit rows."""
        index = codes.long()
        total = self.mean + self.values(0)[index[:, 0]]
        for level in range(1, len(NAMES)):
            total = total + self.values(level)[index[:, level]]
        return F.normalize(total, dim=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The same as `encode`."""
        return self.encode(features)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *others: Any) -> None:
        state.setdefault(f"{prefix}again", torch.zeros(()))
        super()._load_from_state_dict(state, prefix, *others)

    @classmethod
    def from_weights(cls, path: str | Path | None = None) -> Self:
        """The shipped tokenizer, or that of a safetensors file, whatever its sizes; in eval mode.

        Raises: `ReferenceModelError` when the file is absent or does not fit.
        """
        file = Path(path) if path is not None else SHIPPED / "semantic_id.safetensors"
        model = cls(*_shape(file)) if file.is_file() else cls()
        load_weights(model, file, "semantic_id")
        return model.eval()


def _shape(file: Path) -> tuple[tuple[int, ...], int, int]:
    """Sizes, dimension and latent of a file. Raises `ReferenceModelError`."""
    try:
        with safe_open(file, "pt") as weights:
            dimension, latent = weights.get_slice("basis").get_shape()
            sizes = tuple(weights.get_slice(name).get_shape()[0] for name in NAMES)
    except (SafetensorError, ValueError, IndexError) as error:
        raise ReferenceModelError(
            f"{file} does not hold weights of semantic_id: {error}; train them anew"
        ) from error
    return sizes, dimension, latent
