"""The semantic-ID tokenizer as two graphs: `encode` (features to codes) and `decode` (back).

In: the learned weights. Out: the graphs, and what serving must know. The search is exact, so that a
code never depends on the batch, the runtime or the processor (docs/decisions/0035).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from export.manifest import Source, TensorSpec
from export.reference.weights import SHIPPED
from export.revision import file_revision
from export.semantic_id.model import NAMES, SemanticId
from export.semantic_id.search import project, search
from export.sources.card import load_own, read_card
from export.sources.source import GraphSource, ModelSource

BATCHES = (1, 64, 1024)
# What the gate of a tokenizer takes (docs/decisions/0021).
GATE_ROWS = 100_000
# What is enough to see that the shipped one, which went through it, was put together rightly.
ROWS = 20_480
WEIGHTS = "semantic_id.safetensors"


class ExactEncoder(torch.nn.Module):
    """`SemanticId.encode` with everything that does not depend on the features worked out."""

    basis: Tensor
    offset: Tensor

    def __init__(self, model: SemanticId) -> None:
        super().__init__()
        basis, offset = model.projection()
        self.carry, self.again = float(model.carry), int(model.again)
        self.register_buffer("basis", basis)  # (D, L) float64
        self.register_buffer("offset", offset)  # (L,) float64
        for level in range(len(NAMES)):
            self.register_buffer(f"keys_{level}", model.keys(level))  # (K, L)
            self.register_buffer(f"threshold_{level}", model.threshold(level))  # (K,)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Unit rows float32 (B, D) -> codes int32 (B, 6), margin float32 (B, 6)."""
        tables = [
            (self._buffer("keys", level), self._buffer("threshold", level))
            for level in range(len(NAMES))
        ]
        latent = project(features, self.basis, self.offset)
        return search(latent, tables, self.carry, self.again)

    def _buffer(self, name: str, level: int) -> Tensor:
        return cast(Tensor, getattr(self, f"{name}_{level}"))


class Decoder(torch.nn.Module):
    """`SemanticId.decode` as a module."""

    def __init__(self, model: SemanticId) -> None:
        super().__init__()
        self.model = model

    def forward(self, codes: Tensor) -> Tensor:
        """Codes int32 (B, 6) -> float32 (B, D), unit rows."""
        return self.model.decode(codes)


def read_semantic_id(weights: Path | None = None) -> ModelSource:
    """Read the tokenizer, by default the shipped one.

    Raises:
        SourceError: the card does not say on which encoders it was learned.
    """
    file = weights or SHIPPED / "semantic_id.safetensors"
    card = read_card(file)
    model = load_own(SemanticId.from_weights, file)
    return ModelSource(
        kind="semantic_id",
        source=Source("tessera/semantic_id", file_revision(file)),
        graphs=semantic_id_graphs(model),
        # The weights travel with the graphs, so that the next training can start from them.
        files={WEIGHTS: file.read_bytes()},
        metadata={
            "dimension": model.dimension,
            "levels": list(NAMES),
            "sizes": list(model.sizes),
            # Serving refuses other encoders: the codes would mean nothing.
            "encoders": card.get("encoders"),
            "card": card,
        },
    )


def tried_on(source: ModelSource, rows: int) -> ModelSource:
    """The same tokenizer, whose codes are compared on so many vectors at every batch size."""
    encode = replace(source.graphs["encode"], rows=rows, single_rows=rows)
    return replace(source, graphs={**source.graphs, "encode": encode})


def semantic_id_graphs(model: SemanticId) -> dict[str, GraphSource]:
    """Both graphs of a tokenizer."""
    sizes = torch.tensor(model.sizes)

    def codes(count: int, generator: torch.Generator) -> Tensor:
        return (torch.rand((count, len(NAMES)), generator=generator) * sizes).int()

    def sample_codes(batch: Mapping[str, int], generator: torch.Generator) -> tuple[Tensor]:
        return (codes(batch["batch"], generator),)

    def sample_features(batch: Mapping[str, int], generator: torch.Generator) -> tuple[Tensor]:
        """Reconstructions with noise, from hardly any (near ties) to nothing but noise."""
        with torch.no_grad():
            centre = model.decode(codes(batch["batch"], generator))
        scale = 10 ** (-4 * torch.rand((batch["batch"], 1), generator=generator))
        noise = scale * torch.randn(centre.shape, generator=generator)
        return (torch.nn.functional.normalize(centre + noise, dim=1),)

    features = TensorSpec("features", "float32", ("batch", model.dimension))
    code_tensor = TensorSpec("codes", "int32", ("batch", len(NAMES)))
    margin = TensorSpec("margin", "float32", ("batch", len(NAMES)))
    reconstructed = TensorSpec("features_hat", "float32", ("batch", model.dimension))
    axes = {"batch": BATCHES}
    encoder, decoder = ExactEncoder(model).eval(), Decoder(model).eval()
    return {
        "encode": GraphSource(
            encoder, (features,), (code_tensor, margin), sample_features, axes, ROWS
        ),
        "decode": GraphSource(decoder, (code_tensor,), (reconstructed,), sample_codes, axes),
    }
