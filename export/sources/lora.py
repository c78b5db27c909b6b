"""LoRA adapters of a language model: merged into its weights, or listed beside them.

In: folders as peft saves them (`adapter_config.json`, `adapter_model.safetensors`). Out: weights
files with W + s B A in place of W, or the files and facts that serving needs to load them itself.
s is alpha / r, or alpha / sqrt(r) where the adapter says so.
Source: Hu et al., "LoRA" (2021); Kalajdzievski, "A Rank Stabilization Scaling Factor" (2023).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from export.errors import SourceError
from export.revision import folder_revision
from export.sources.huggingface import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# What would make W + s B A something else than what the adapter was trained as.
_PLAIN: Mapping[str, tuple[object, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "fan_in_fan_out": (False, None),
}


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter: pairs (A (r, in), B (out, r)) by the name of the weight they are added to."""

    folder: Path
    rank: int
    scale: float
    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def read_lora(folder: Path) -> Lora:
    """Read an adapter. Raises SourceError where it is none, or is more than W + s B A."""
    config = read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise SourceError(f"{folder}: expected peft_type LORA, found {config.get('peft_type')}")
    for key, plain in _PLAIN.items():
        if key in config and config[key] not in plain:
            raise SourceError(f"{folder / CONFIG}: {key} is {config[key]!r}: merge it with peft")
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        tensors = load_file(folder / WEIGHTS)
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        raise SourceError(f"{folder}: no LoRA adapter ({error!r}); pickles are refused") from error
    pairs = {}
    for name, down in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        up = tensors.get(name.replace(".lora_A.", ".lora_B."))
        target = name.removeprefix(_PREFIX).replace(".lora_A.weight", ".weight")
        if up is None or down.shape[0] != rank or up.shape[1] != rank:
            raise SourceError(f"{folder / WEIGHTS}: {target}: A and B do not fit rank {rank}")
        pairs[target] = (down, up)
    if 2 * len(pairs) != len(tensors) or not pairs:
        raise SourceError(f"{folder / WEIGHTS} holds more than pairs of lora_A and lora_B")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Lora(folder, rank, scale, pairs)


def check_targets(lora: Lora, weights: list[Path]) -> None:
    """Refuse an adapter of another model. Raises SourceError."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weights:
        with safe_open(path, "pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    for name, (down, up) in lora.pairs.items():
        if shapes.get(name) != (up.shape[0], down.shape[1]):
            raise SourceError(
                f"{lora.folder}: adds {(up.shape[0], down.shape[1])} to {name}, which this model "
                f"has as {shapes.get(name)}: it is an adapter of another model"
            )


def write_merged(lora: Lora, weights: Path, target: Path) -> None:
    """Write one weights file with the adapter added, every tensor in the dtype that it had."""
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(weights)
    for name in lora.pairs.keys() & tensors.keys():
        down, up = (part.float() for part in lora.pairs[name])
        weight = tensors[name]
        tensors[name] = (weight.float() + lora.scale * (up @ down)).to(weight.dtype)
    save_file(tensors, target, metadata=metadata)


def listing(loras: list[Lora], base_revision: str) -> list[dict[str, object]]:
    """What the manifest says of adapters that lie beside the weights, in `lora/<name>/`."""
    return [
        {
            "name": lora.folder.name,
            "path": f"lora/{lora.folder.name}",
            "rank": lora.rank,
            "revision": folder_revision(lora.folder, [CONFIG, WEIGHTS]),
            "base": base_revision,
        }
        for lora in loras
    ]
