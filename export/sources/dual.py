"""Text towers of dual encoders: CLIP, SigLIP and Chinese-CLIP folders.

In: a Hugging Face folder. Out: a graph from `input_ids`, `attention_mask` (B, T) to
`text_features` (B, D), unit rows, in the space of the same folder's image tower.
"""

from pathlib import Path
from typing import Any

import torch

from export.manifest import Source
from export.revision import folder_revision
from export.sources.huggingface import load_model, read_json
from export.sources.source import ModelSource
from export.sources.text import text_source
from export.sources.tokenizer import read_tokenizer

_FIXED_LENGTH = ("siglip", "siglip2")


class TextTower(torch.nn.Module):
    """A dual encoder's text side.

    Args:
        fixed_length: what every text is padded to inside the graph; None where a mask is used.
            SigLIP was trained on full rows of padding, reads its last position, and has no mask.
    """

    def __init__(self, model: Any, fixed_length: int | None, pad_id: int) -> None:
        super().__init__()
        self.model = model
        self.fixed_length = fixed_length
        self.pad_id = pad_id

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, T) int64 ids and mask -> (B, D) float32, unit rows."""
        if self.fixed_length is None:
            found = self.model.get_text_features(
                input_ids=input_ids, attention_mask=attention_mask
            ).pooler_output
        else:
            ids = torch.where(attention_mask == 1, input_ids, self.pad_id)
            padding = torch.full((ids.shape[0], self.fixed_length), self.pad_id)
            full = torch.cat([ids, padding], 1)[:, : self.fixed_length]
            found = self.model.get_text_features(input_ids=full).pooler_output
        return torch.nn.functional.normalize(found, dim=-1)


def read_text_tower(folder: Path) -> ModelSource:
    """Read the text side of a dual encoder.

    Raises:
        SourceError: a file is missing, or there is no tokenizer to read.
    """
    family = str(read_json(folder / "config.json")["model_type"])
    model: Any = load_model(folder)
    text = model.config.text_config
    tokenizer, settings = read_tokenizer(folder, int(text.max_position_embeddings))
    fixed = int(text.max_position_embeddings) if family in _FIXED_LENGTH else None
    module = TextTower(model, fixed, int(settings["pad_id"])).eval()
    with torch.inference_mode():
        one = torch.ones((1, 2), dtype=torch.int64)
        dimension = int(module(one, one).shape[-1])
    return text_source(
        module,
        Source(folder.name, folder_revision(folder)),
        (tokenizer, settings),
        {
            "dimension": dimension,
            "vocabulary": int(text.vocab_size),
            "layers": int(text.num_hidden_layers),
        },
        {"family": family},
    )
