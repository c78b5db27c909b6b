"""Sentence encoders: a sentence-transformers folder, or a bare BERT-type one.

In: a Hugging Face folder with `config.json`, safetensors and `tokenizer.json`. Out: a graph from
`input_ids`, `attention_mask` (B, T) to `text_features` (B, D), pooled and normalised inside, and a
tokenizer that truncates and pads as the model wants.
Pooling: Reimers and Gurevych, "Sentence-BERT", 2019.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from export.errors import SourceError
from export.manifest import Source, TensorSpec
from export.revision import folder_revision
from export.sources.huggingface import load_model, read_json
from export.sources.source import GraphSource, ModelSource
from export.sources.tokenizer import read_tokenizer

BARE_FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta")
# Their positions are counted from two on.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta")
_POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


class SentenceEncoder(torch.nn.Module):
    """A transformer, the pooling of its last hidden states, and L2 normalisation."""

    def __init__(self, transformer: torch.nn.Module, pooling: str) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = pooling

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, T) int64 ids and mask -> (B, D) float32, unit rows."""
        hidden = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state  # (B, T, D)
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled, dim=-1)


def read_text_encoder(folder: Path, name: str | None = None) -> ModelSource:
    """Read a sentence encoder.

    Raises:
        SourceError: a file is missing, or a module of the folder is of no supported type.
    """
    transformer: Any = load_model(folder)
    config = transformer.config
    positions = int(config.max_position_embeddings)
    if config.model_type in _OFFSET_POSITIONS:
        positions -= 2
    tokenizer = read_tokenizer(folder, positions)
    module = SentenceEncoder(transformer, _pooling(folder)).eval()
    return text_source(
        module,
        Source(name or folder.name, folder_revision(folder)),
        tokenizer,
        {
            "dimension": int(config.hidden_size),
            "vocabulary": int(config.vocab_size),
            "layers": int(config.num_hidden_layers),
        },
        {"pooling": module.pooling},
    )


def text_source(
    module: torch.nn.Module,
    source: Source,
    tokenizer: tuple[bytes, Mapping[str, Any]],
    sizes: Mapping[str, int],
    metadata: Mapping[str, object],
) -> ModelSource:
    """A text tower that takes `input_ids`, `attention_mask` and gives unit rows.

    Args:
        tokenizer: as `read_tokenizer` gives it.
        sizes: `dimension` of the features, `vocabulary` of the ids, number of `layers`.
    """
    file, settings = tokenizer
    length = int(settings["max_length"])

    def sample(
        axes: Mapping[str, int], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (axes["batch"], axes["sequence"])
        ids = torch.randint(0, sizes["vocabulary"], shape, generator=generator)
        # Rows of every length: padding must not change what a row gives.
        lengths = torch.randint(1, shape[1] + 1, (shape[0], 1), generator=generator)
        return ids, (torch.arange(shape[1])[None] < lengths).long()

    graph = GraphSource(
        module=module,
        inputs=tuple(
            TensorSpec(name, "int64", ("batch", "sequence"))
            for name in ("input_ids", "attention_mask")
        ),
        outputs=(TensorSpec("text_features", "float32", ("batch", sizes["dimension"])),),
        sample=sample,
        axes={
            "batch": (1, 3, 8, 32),
            "sequence": tuple(min(tokens, length) for tokens in (2, 7, 33, length)),
        },
        attention=sizes["layers"],
    )
    return ModelSource(
        kind="text_encoder",
        source=source,
        graphs={"model": graph},
        files={"tokenizer.json": file},
        metadata={"dimension": sizes["dimension"], "tokenizer": dict(settings), **metadata},
    )


def _pooling(folder: Path) -> str:
    listing = folder / "modules.json"
    if not listing.exists():
        return "mean"
    modules = [str(entry["type"]).rsplit(".", 1)[-1] for entry in json.loads(listing.read_bytes())]
    if unknown := set(modules) - {"Transformer", "Pooling", "Normalize"}:
        raise SourceError(f"{listing}: modules of type {sorted(unknown)} are not supported")
    pooling = read_json(folder / "1_Pooling" / "config.json")
    modes = [mode for key, mode in _POOLING.items() if pooling.get(key)]
    others = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
    if len(modes) != 1 or len(others) != 1:
        raise SourceError(f"{folder}: pooling must be one of {sorted(_POOLING)}, found {others}")
    return modes[0]
