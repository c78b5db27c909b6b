"""The project's own modules: the reference image tower and the semantic-ID tokenizer.

In: their weights (safetensors) and the JSON card beside them. Out: graphs and what serving must
know of them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from export.manifest import Source, TensorSpec
from export.reference.image_encoder import DIM, SIZE, ImageEncoder
from export.reference.photos import RESIZE_RULE
from export.reference.weights import SHIPPED
from export.revision import file_revision
from export.sources.card import load_own, read_card
from export.sources.image import random_pixels
from export.sources.semantic_id import read_semantic_id
from export.sources.source import GraphSource, ModelSource


def read_image_encoder(weights: Path | None = None) -> ModelSource:
    """Read the reference image tower, by default the shipped one."""
    file = weights or SHIPPED / "image_encoder.safetensors"
    module = load_own(ImageEncoder.from_weights, file)

    def sample(sizes: Mapping[str, int], generator: torch.Generator) -> tuple[torch.Tensor]:
        return (random_pixels(sizes["batch"], (SIZE, SIZE), generator),)

    graph = GraphSource(
        module=module,
        inputs=(TensorSpec("pixels", "uint8", ("batch", SIZE, SIZE, 3)),),
        outputs=(TensorSpec("image_features", "float32", ("batch", DIM)),),
        sample=sample,
        axes={"batch": (1, 3, 8, 32)},
    )
    metadata = {"dimension": DIM, "height": SIZE, "width": SIZE, "resize": RESIZE_RULE}
    return ModelSource(
        kind="image_encoder",
        source=Source("tessera/image_encoder", file_revision(file)),
        graphs={"model": graph},
        metadata=metadata | {"card": read_card(file)},
    )


READERS: Mapping[str, Callable[[], ModelSource]] = {
    "image_encoder": read_image_encoder,
    "semantic_id": read_semantic_id,
}
