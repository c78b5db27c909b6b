"""An image tower and a semantic-ID tokenizer as one graph: pictures to features and codes.

In: an image encoder's `ModelSource` and a tokenizer that was learned on that encoder. Out: a
`ModelSource` whose graph gives `image_features`, `codes` and `margin` in one run.
"""

from dataclasses import replace
from pathlib import Path

import torch

from export.errors import SourceError
from export.sources.semantic_id import GATE_ROWS, read_semantic_id, tried_on
from export.sources.source import GraphSource, ModelSource

TOKENIZER = "semantic_id"


class Sequence(torch.nn.Module):
    """A tower, then an encoder of its features."""

    def __init__(self, tower: torch.nn.Module, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.encoder = encoder

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`pixels` uint8 (B, H, W, 3) -> features (B, D), codes int32 (B, 6), margin (B, 6)."""
        features = self.tower(pixels)
        return (features, *self.encoder(features))


def fuse(source: ModelSource, tokenizer: str, rows: int = GATE_ROWS) -> ModelSource:
    """Put a tokenizer behind an image tower.

    Args:
        tokenizer: `semantic_id` for the shipped one, or the file of its weights.
        rows: vectors that the tokenizer by itself is compared on at every batch size.

    Raises:
        SourceError: no image tower, no such tokenizer, or one that was learned on other encoders.
    """
    if source.kind != "image_encoder":
        raise SourceError(f"--fuse needs an image encoder, this source is of kind {source.kind}")
    weights = None if tokenizer == TOKENIZER else Path(tokenizer)
    if weights is not None and not weights.is_file():
        raise SourceError(f"--fuse {tokenizer}: expected `{TOKENIZER}` or a weights file")
    read = tried_on(read_semantic_id(weights), rows)
    _check_encoder(source, read)
    tower, encode = source.graphs["model"], read.graphs["encode"]
    (features,), (taken,) = tower.outputs, encode.inputs
    if features.shape != taken.shape:
        raise SourceError(f"the tokenizer takes {taken.shape[1]} numbers, not {features.shape[1]}")
    graph = GraphSource(
        module=Sequence(tower.module, encode.module),
        inputs=tower.inputs,
        outputs=(*tower.outputs, *encode.outputs),
        sample=tower.sample,
        axes=tower.axes,
        rows=max(tower.rows, 512),  # a code that flips is rare
        stages={"image": tower, "encode": encode},
    )
    return replace(
        source,
        graphs={"model": graph},
        metadata={
            **source.metadata,
            "tokenizer": {"source": read.source.name, "revision": read.source.revision},
            "levels": read.metadata["levels"],
            "sizes": read.metadata["sizes"],
        },
    )


def _check_encoder(source: ModelSource, tokenizer: ModelSource) -> None:
    """Codes of vectors that the tokenizer was not learned on would mean nothing."""
    encoders = tokenizer.metadata.get("encoders")
    learned_on = encoders.get("image_encoder") if isinstance(encoders, dict) else None
    if learned_on is not None and learned_on != source.source.revision:
        raise SourceError(
            f"the tokenizer {tokenizer.source.name} was learned on an image encoder of revision "
            f"{learned_on}, this one is {source.source.revision}: its codes would mean nothing; "
            "learn one on this encoder (python -m export.reference semantic_id --embeddings ...)"
        )
