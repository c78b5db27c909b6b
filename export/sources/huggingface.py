"""Hugging Face folders, read offline and without running code from them."""

import json
from pathlib import Path
from typing import Any

import torch

from export.errors import MissingExtraError, SourceError


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises SourceError if it is missing or is something else."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise SourceError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise SourceError(f"{file}: expected a JSON object")
    return value


def load_model(folder: Path, loader: str = "AutoModel") -> torch.nn.Module:
    """The folder's model in float32, evaluation mode, from safetensors only.

    Args:
        loader: which of transformers' classes reads it.

    Raises:
        SourceError: no safetensors (a pickle may run code as it is read), or an unknown model.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers") from error
    if not list(folder.glob("*.safetensors")):
        raise SourceError(
            f"{folder} has no *.safetensors. Pickled weights (.bin, .pt) can run code as they are "
            "read and are refused: save the model again with safe_serialization=True"
        )
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = getattr(transformers, loader).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            # One operator a layer, which becomes one node.
            attn_implementation="sdpa",
        )
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"{folder} is no model that transformers can open: {error}") from error
    loaded: torch.nn.Module = model.eval()
    return loaded
