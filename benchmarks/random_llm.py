"""A randomly initialised Qwen3 judge of any size: what cost is measured on, and tests run with.

In: a folder and sizes. Out: the folder as `python -m export vllm` takes it. It knows nothing, so
figures about it are about speed, memory and shapes alone.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_store.record import CATEGORIES

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SOFT_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Size:
    """Of the decoder. MEDIUM has about 150 million parameters."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    vocabulary: int = 600
    context: int = 640


TINY = Size()
MEDIUM = Size(hidden=768, layers=21, heads=12, vocabulary=2000, context=640)


def make(folder: Path, size: Size = TINY, seed: int = 0, soft_tokens: int = SOFT_TOKENS) -> Path:
    """Write model, tokenizer, `checks.json` and adapter; the same for the same seed.

    soft_tokens: none, and no adapter: words alone are judged.
    """
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    words = make_words(folder, size, soft_tokens=soft_tokens)
    torch.manual_seed(seed)
    config = transformers.Qwen3Config(
        vocab_size=words,
        hidden_size=size.hidden,
        intermediate_size=size.hidden * 3,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=max(1, size.heads // 2),
        head_dim=size.hidden // size.heads if size.hidden // size.heads >= 32 else 32,
        max_position_embeddings=size.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    models: Any = transformers
    models.utils.logging.disable_progress_bar()
    model = models.Qwen3ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder, safe_serialization=True)
    if soft_tokens:
        _adapter(folder, size)
    return folder


def make_words(folder: Path, size: Size = TINY, *, soft_tokens: int = SOFT_TOKENS) -> int:
    """Write what is no model: tokenizer and `checks.json`. Returns: the number of tokens."""
    (folder / "checks.json").write_text(json.dumps(_checks(size, soft_tokens), indent=1))
    return _tokenizer(folder, size)


def _tokenizer(folder: Path, size: Size) -> int:
    """A byte-level BPE (as Qwen's) learned on a few sentences; its number of tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = json.dumps(_checks(size)["prompts"])
    tokenizer.train_from_iterator([prompts, "yes no yes no a red dress, blue shoes"] * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()


def _adapter(folder: Path, size: Size) -> None:
    from safetensors.torch import save_file

    from export.reference.checks.model import Adapter

    adapter = Adapter(size.hidden)
    save_file(adapter.state_dict(), folder / "adapter.safetensors")


def _prompt(question: str, body: str, **more: int) -> dict[str, object]:
    prefix = f"<|im_start|>system\nYou judge ads. {question} Answer yes or no.<|im_end|>\n"
    suffix = f"<|im_end|>\n<|im_start|>assistant\n{question}:"
    return {"prefix": prefix, "body": body, "suffix": suffix, **more}


def _checks(size: Size, soft_tokens: int = SOFT_TOKENS) -> dict[str, object]:
    ad = "<|im_start|>user\nTitle: {title}\nText: {text}\nImage: {image}\n"
    affine = {"scale": 1.0, "bias": 0.0}
    return {
        "labels": {"yes": "yes", "no": "no"},
        "block_size": 32,
        "filler": "\n",
        "soft_tokens": soft_tokens,
        "prompts": {
            "relevance": _prompt("Is the ad what is looked for?", ad + "Query: {query}"),
            "risk": {c: _prompt(f"Is it about {c.replace('_', ' ')}?", ad) for c in CATEGORIES},
            "caption": _prompt("Describe the image", "{image}", max_tokens=12),
        },
        "limits": {"query_tokens": 32, "title_tokens": 48, "text_tokens": 160},
        "context": size.context,
        "calibration": {"relevance": affine, "risk": dict.fromkeys(CATEGORIES, affine)},
        "thresholds": {c: {"review": 0.6, "block": 0.9} for c in CATEGORIES},
        "encoder": None,
    }
