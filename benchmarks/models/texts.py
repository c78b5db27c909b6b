"""A text tower of MiniLM's shape, and texts as long as titles and descriptions are.

In: a BERT configuration. Out: a `ModelSource` with random weights; token ids of random texts, and
the tensors that `/v1/encode` would make of one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.encode.text import LENGTHS

COUNT = 128  # different texts
# Tokens of a text: log-normal, half of them up to 14, one in twenty over 35.
MEDIAN, SIGMA, LEAST, MOST = 14, 0.55, 3, 64
SPECIAL = 3  # ids below are the tokenizer's own


def texts(vocabulary: int) -> list[NDArray[np.int64]]:
    """Token ids (T,) of COUNT texts, always the same ones."""
    random = np.random.default_rng(3)
    lengths = np.exp(random.normal(np.log(MEDIAN), SIGMA, COUNT)).round().astype(int)
    return [
        random.integers(SPECIAL, vocabulary, length)
        for length in np.clip(lengths, LEAST, MOST).tolist()
    ]


def padded(ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """One text as a request's tensors (1, L), padded to a length that others are padded to."""
    length = next(size for size in LENGTHS if len(ids) <= size)
    tensors = {name: np.zeros((1, length), np.int64) for name in ("input_ids", "attention_mask")}
    tensors["input_ids"][0, : len(ids)] = ids
    tensors["attention_mask"][0, : len(ids)] = 1
    return tensors


def tower(sizes: Mapping[str, int]) -> Any:
    """The source of a sentence encoder, mean pooling and unit rows inside."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models

    from export.manifest import Source
    from export.sources.text import SentenceEncoder, text_source

    torch.manual_seed(0)
    library: Any = transformers
    encoder = library.BertModel(library.BertConfig(**sizes), add_pooling_layer=False)
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))  # noqa: S106
    return text_source(
        SentenceEncoder(encoder, "mean").eval(),
        Source("benchmarks/minilm", "random"),
        (words.to_str().encode(), {"max_length": sizes["max_position_embeddings"]}),
        {
            "dimension": sizes["hidden_size"],
            "vocabulary": sizes["vocab_size"],
            "layers": sizes["num_hidden_layers"],
        },
        {"pooling": "mean"},
    )
