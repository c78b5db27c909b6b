"""The language model (Qwen3 architecture), its tokenizer, and the adapter for images.

The model reads and writes `<|...|>` marks, lower-cased byte-level BPE tokens, and soft tokens: rows
of its own embedding width that the adapter makes out of image features. Qwen3: arXiv 2505.09388.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from export.reference.checks.prompt import END, MARKS, NO, PAD, SOFT_TOKENS, YES
from export.reference.errors import ReferenceModelError
from export.reference.weights import load_weights

WIDTH = 192
LAYERS = 3
FEATURES = 384
VOCABULARY = 2048


class Adapter(nn.Module):
    """Image features to soft tokens."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width
        self.hidden = nn.Linear(FEATURES, 512)
        self.out = nn.Linear(512, SOFT_TOKENS * width)

    def forward(self, image_features: Tensor) -> Tensor:
        """Unit rows float32 (B, 384) -> soft tokens float32 (B, 8, width)."""
        # Unit rows of 384 values are small numbers; the factor brings them to a scale of one.
        x = torch.nn.functional.gelu(self.hidden(image_features * FEATURES**0.5))
        tokens: Tensor = self.out(x)
        return tokens.view(-1, SOFT_TOKENS, self.width)

    @classmethod
    def from_weights(cls, path: str | Path | None = None) -> Self:
        """The shipped adapter, or that of a safetensors file; in eval mode.

        Raises: `ReferenceModelError` when the file is absent or does not fit.
        """
        model = cls()
        load_weights(model, path, "checks/adapter")
        return model.eval()


def new_model(vocabulary: int, seed: int) -> Any:
    """An untrained `Qwen3ForCausalLM`."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=None,
        eos_token_id=MARKS.index(END),
        pad_token_id=MARKS.index(PAD),
    )
    return Qwen3ForCausalLM(config)  # type: ignore[no-untyped-call]


def train_tokenizer(lines: Iterable[str]) -> Any:
    """A lower-casing byte-level BPE `tokenizers.Tokenizer` of at most 2,048 entries.

    Marks get the first ids. Raises: `ReferenceModelError` when a label is not one token.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(MARKS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    for label in (YES, NO):
        label_id(tokenizer, label)
    return tokenizer


def label_id(tokenizer: Any, label: str) -> int:
    """The token that a label is. Raises: `ReferenceModelError` when it is several."""
    ids = tokenizer.encode(label, add_special_tokens=False).ids
    if len(ids) != 1:
        raise ReferenceModelError(
            f"expected the label {label!r} to be a single token, found {len(ids)}: train the "
            "tokenizer on texts that contain it"
        )
    return int(ids[0])
