"""A model folder's tokenizer as one `tokenizer.json` that cuts and pads as the model wants.

In: a Hugging Face folder with `tokenizer.json`, or with the older vocabulary files. Out: the bytes
for the bundle, and the settings that go into its manifest.
"""

from pathlib import Path
from typing import Any

from export.errors import MissingExtraError, SourceError
from export.sources.huggingface import read_json

_PAD_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")


def read_tokenizer(folder: Path, positions: int) -> tuple[bytes, dict[str, Any]]:
    """Read it; texts are cut at what the folder says, `positions` tokens at most.

    Raises:
        SourceError: no tokenizer, or none that has a padding token.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizers") from error
    file = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file)) if file.exists() else _converted(folder)
    truncation, padding = tokenizer.truncation or {}, tokenizer.padding or {}
    configured: int = truncation.get("max_length") or _configured_length(folder) or positions
    length = min(configured, positions)
    asked = str(padding.get("pad_token") or _configured_pad(folder) or "")
    candidates = [asked] if asked else list(_PAD_TOKENS)
    ids = {token: tokenizer.token_to_id(token) for token in candidates}
    pad, pad_id = next(((token, id_) for token, id_ in ids.items() if id_ is not None), ("", -1))
    if pad_id < 0:
        raise SourceError(f"{folder}: the tokenizer has no padding token, looked for {candidates}")
    tokenizer.enable_truncation(length)
    # Not to a fixed length: short texts would pay for the longest that is allowed.
    tokenizer.enable_padding(pad_id=pad_id, pad_token=pad)
    settings: dict[str, Any] = {"file": "tokenizer.json", "max_length": length}
    settings |= {"padding": "longest", "pad_id": pad_id, "pad_token": pad}
    return tokenizer.to_str().encode(), settings


def _converted(folder: Path) -> Any:
    """The fast form of an older tokenizer (vocab.txt and the like)."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return loaded.backend_tokenizer
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise SourceError(
            f"{folder} has no tokenizer.json and nothing it can be made from: {error}"
        ) from error


def _configured_length(folder: Path) -> int | None:
    file = folder / "sentence_bert_config.json"
    return int(read_json(file)["max_seq_length"]) if file.exists() else None


def _configured_pad(folder: Path) -> str | None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            token = read_json(folder / name).get("pad_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                return token
    return None
