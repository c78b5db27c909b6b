"""Smaller weights for a language model, by llm-compressor where it is installed.

In: a model folder and one of llm-compressor's schemes that need no data. Out: a folder that vLLM
opens. llm-compressor is no dependency of this package and was never run with it: its API is
`llmcompressor.oneshot(model=, recipe=, output_dir=)` with a `QuantizationModifier`.
"""

import shutil
from importlib import import_module
from pathlib import Path

from export.errors import SourceError

# Weights alone, or activations that are measured as they come.
SCHEMES = ("FP8_DYNAMIC", "W8A16", "W4A16", "NVFP4A16")


def quantize(folder: Path, scheme: str, target: Path) -> Path:
    """Write `folder` in `scheme` to `target`, with the files that make it a judge.

    Raises:
        SourceError: an unknown scheme, or no llm-compressor.
    """
    if scheme not in SCHEMES:
        raise SourceError(f"--quantize {scheme}: expected one of {SCHEMES}")
    try:
        oneshot = import_module("llmcompressor").oneshot
        modifiers = import_module("llmcompressor.modifiers.quantization")
    except ImportError as error:
        raise SourceError(
            "--quantize needs llm-compressor (pip install llmcompressor, in an environment of its "
            "own: it asks for other versions of torch and transformers), or quantize the folder "
            "elsewhere and export the result"
        ) from error
    recipe = modifiers.QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"])
    oneshot(model=str(folder), recipe=recipe, output_dir=str(target))
    for path in folder.iterdir():
        if path.is_file() and not (target / path.name).exists() and path.suffix != ".safetensors":
            shutil.copyfile(path, target / path.name)
    if (folder / "adapter.safetensors").is_file():
        shutil.copyfile(folder / "adapter.safetensors", target / "adapter.safetensors")
    return target
