"""The semantic-ID tokenizer as two graphs: `encode` (features to codes) and `decode` (back).

Codes must not depend on the batch a feature travels in, on the runtime or on the processor, but
sums in floating point do. So the search runs on integers: features, basis and codebooks are put
on a grid of 2^-24 and held in float64, where every product is below 2^48 and every sum below 2^53,
and is therefore exact in whatever order it is added up. What is left are true ties, and there the
lowest index wins (docs/decisions/0021-exact-semantic-ids.md).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from export.manifest import Source, TensorSpec
from export.reference.semantic_id import DIM, LEVELS, SemanticId
from export.reference.weights import SHIPPED
from export.revision import file_revision
from export.sources.card import load_own, read_card
from export.sources.source import GraphSource, ModelSource

# float32 holds values of a unit vector to 2^-24 of their size or better; the grid keeps that.
GRID = float(1 << 24)
BATCHES = (1, 64, 1024)
ROWS = 20_480


class ExactEncoder(torch.nn.Module):
    """`SemanticId.encode` in exact arithmetic."""

    basis: Tensor
    offset: Tensor

    def __init__(self, model: SemanticId) -> None:
        super().__init__()
        basis = model.basis.double()
        self.register_buffer("basis", (basis * GRID).round())  # (384, L)
        self.register_buffer("offset", model.mean.double() @ basis * GRID)  # (L,)
        for level in range(len(LEVELS)):
            table = (model.entries(level).double() * GRID).round()  # (K, L)
            self.register_buffer(f"twice_{level}", 2 * table.T.contiguous())
            self.register_buffer(f"bias_{level}", -table.square().sum(1))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Unit rows float32 (B, 384) -> codes int32 (B, 6), margin float32 (B, 6)."""
        grid = (features.double() * GRID).round()  # (B, 384)
        latent = (grid @ self.basis / GRID - self.offset).round()  # (B, L)
        residual = latent
        codes, margins = [], []
        for level in range(len(LEVELS)):
            twice = self._buffer("twice", level)
            # 2 r.c - |c|^2, the largest where the squared distance is the smallest: (B, K)
            score = torch.addmm(self._buffer("bias", level), residual, twice)
            # argmax gives the first of equals in both runtimes; topk does not in torch.
            index = score.argmax(1)
            best = score.topk(2, dim=1).values
            codes.append(index)
            margins.append(best[:, 0] - best[:, 1])
            is_centre = level % 2 == 0
            residual = residual - twice.index_select(1, index).T / 2 if is_centre else latent
        margin = torch.stack(margins, 1) / (2 * GRID * GRID)
        return torch.stack(codes, 1).int(), margin.float()

    def _buffer(self, name: str, level: int) -> Tensor:
        return cast(Tensor, getattr(self, f"{name}_{level}"))


class Decoder(torch.nn.Module):
    """`SemanticId.decode` as a module."""

    def __init__(self, model: SemanticId) -> None:
        super().__init__()
        self.model = model

    def forward(self, codes: Tensor) -> Tensor:
        """Codes int32 (B, 6) -> float32 (B, 384), unit rows."""
        return self.model.decode(codes)


def read_semantic_id(weights: Path | None = None) -> ModelSource:
    """Read the tokenizer, by default the shipped one.

    Raises:
        SourceError: the card does not say on which encoders it was learned.
    """
    file = weights or SHIPPED / "semantic_id.safetensors"
    card = read_card(file)
    return ModelSource(
        kind="semantic_id",
        source=Source("tessera/semantic_id", file_revision(file)),
        graphs=semantic_id_graphs(load_own(SemanticId.from_weights, file)),
        metadata={
            "dimension": DIM,
            "levels": [name for name, _ in LEVELS],
            "sizes": [size for _, size in LEVELS],
            # Serving refuses other encoders: the codes would mean nothing.
            "encoders": card.get("encoders"),
            "card": card,
        },
    )


def semantic_id_graphs(model: SemanticId) -> dict[str, GraphSource]:
    """Both graphs of a tokenizer."""
    sizes = torch.tensor([size for _, size in LEVELS])

    def codes(count: int, generator: torch.Generator) -> Tensor:
        return (torch.rand((count, len(LEVELS)), generator=generator) * sizes).int()

    def sample_codes(batch: Mapping[str, int], generator: torch.Generator) -> tuple[Tensor]:
        return (codes(batch["batch"], generator),)

    def sample_features(batch: Mapping[str, int], generator: torch.Generator) -> tuple[Tensor]:
        """Reconstructions with noise, from hardly any (near ties) to nothing but noise."""
        with torch.no_grad():
            centre = model.decode(codes(batch["batch"], generator))
        scale = 10 ** (-4 * torch.rand((batch["batch"], 1), generator=generator))
        noise = scale * torch.randn(centre.shape, generator=generator)
        return (torch.nn.functional.normalize(centre + noise, dim=1),)

    features = TensorSpec("features", "float32", ("batch", DIM))
    code_tensor = TensorSpec("codes", "int32", ("batch", len(LEVELS)))
    margin = TensorSpec("margin", "float32", ("batch", len(LEVELS)))
    reconstructed = TensorSpec("features_hat", "float32", ("batch", DIM))
    axes = {"batch": BATCHES}
    encoder, decoder = ExactEncoder(model).eval(), Decoder(model).eval()
    return {
        "encode": GraphSource(
            encoder, (features,), (code_tensor, margin), sample_features, axes, ROWS
        ),
        "decode": GraphSource(decoder, (code_tensor,), (reconstructed,), sample_codes, axes),
    }
