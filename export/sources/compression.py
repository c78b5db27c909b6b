"""Smaller weights for a language model, by llm-compressor where it is installed.

In: a model folder and one of llm-compressor's schemes that need no data. Out: a folder that vLLM
opens. llm-compressor is no dependency of this package: it wants an environment of its own. Run with
llm-compressor 0.14.0.1 (torch 2.13, CPU): docs/decisions/0098.
"""

import shutil
from importlib import import_module
from pathlib import Path

from export.errors import SourceError

# Weights alone, or activations that are measured as they come. vLLM on CPUs has kernels for W8A8.
SCHEMES = ("W8A8", "FP8_DYNAMIC", "W8A16", "W4A16", "NVFP4A16")


def quantize(folder: Path, scheme: str, target: Path) -> Path:
    """Write `folder` in `scheme` to `target`, with the files that make it a judge.

    Raises:
        SourceError: an unknown scheme, no model, no llm-compressor, or one that refuses the model.
    """
    if scheme not in SCHEMES:
        raise SourceError(f"--quantize {scheme}: expected one of {SCHEMES}")
    if not (folder / "config.json").is_file() or not any(folder.glob("model*.safetensors")):
        raise SourceError(
            f"{folder}: expected a Hugging Face folder with config.json and model.safetensors "
            "(pickled weights are refused)"
        )
    try:
        oneshot = import_module("llmcompressor").oneshot
        modifiers = import_module("llmcompressor.modifiers.quantization")
    except ImportError as error:
        raise SourceError(
            "--quantize needs llm-compressor (pip install llmcompressor, in an environment of its "
            "own: it asks for other versions of transformers), or quantize the folder elsewhere "
            "and export the result"
        ) from error
    recipe = modifiers.QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"])
    try:
        oneshot(model=str(folder), recipe=recipe, output_dir=str(target))
    except (ValueError, RuntimeError, OSError) as error:
        # Such as layers whose width is no multiple of a scheme's group of 128.
        raise SourceError(f"llm-compressor cannot make {scheme} of {folder}: {error}") from error
    for path in folder.iterdir():
        if path.is_file() and not (target / path.name).exists() and path.suffix != ".safetensors":
            shutil.copyfile(path, target / path.name)
    if (folder / "adapter.safetensors").is_file():
        shutil.copyfile(folder / "adapter.safetensors", target / "adapter.safetensors")
    return target
