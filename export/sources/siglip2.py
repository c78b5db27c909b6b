"""SigLIP 2's image tower at one square size.

Its family takes pictures of any aspect ratio, as lists of patches with positions resized for each.
In: such a model. Out: one that takes (B, 3, H, W) of one size, as every other tower does: patches
are cut in the graph, positions are resized once.
Source: Tschannen et al., "SigLIP 2" (2025), section 2.4.2; the patches' order is transformers'.
"""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch

from export.errors import SourceError


def side(settings: Mapping[str, Any], patch: int) -> int:
    """Pixels of the largest square that the preprocessing allows. Raises SourceError."""
    patches = int(settings.get("max_num_patches") or 0)
    if patches < 1:
        raise SourceError("preprocessor_config.json: max_num_patches says how large pictures are")
    return math.isqrt(patches) * patch


class Square(torch.nn.Module):
    """Looks like a dual encoder whose image tower takes pictures of `pixels` x `pixels`."""

    positions: torch.Tensor

    def __init__(self, model: Any, pixels: int) -> None:
        super().__init__()
        self.tower = model.vision_model
        self.config = model.config
        embeddings = self.tower.embeddings
        self.patch = int(embeddings.patch_size)
        self.count = pixels // self.patch  # along a side
        known = embeddings.position_embedding_size
        table = embeddings.position_embedding.weight.detach().reshape(known, known, -1)
        shapes = torch.tensor([[self.count, self.count]])
        resized = embeddings.resize_positional_embeddings(table, shapes, self.count**2)
        self.register_buffer("positions", resized, persistent=False)  # (1, N, D)

    def get_image_features(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        """(B, 3, H, W) -> `pooler_output` (B, D)."""
        count, patch = self.count, self.patch
        rows = pixel_values.permute(0, 2, 3, 1).reshape(-1, count, patch, count, patch, 3)
        patches = rows.permute(0, 1, 3, 2, 4, 5).reshape(-1, count * count, patch * patch * 3)
        hidden = self.tower.embeddings.patch_embedding(patches) + self.positions
        hidden = self.tower.encoder(inputs_embeds=hidden, attention_mask=None).last_hidden_state
        hidden = self.tower.post_layernorm(hidden)
        return SimpleNamespace(pooler_output=self.tower.head(hidden, None))
