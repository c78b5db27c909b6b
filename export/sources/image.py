"""Image towers: CLIP, SigLIP, Chinese-CLIP, ViT, DINOv2, from their Hugging Face folders.

In: a folder with `config.json`, safetensors and `preprocessor_config.json`. Out: a graph from
`pixels` uint8 (B, H, W, 3), RGB, to `image_features` float32 (B, D), unit rows, and for a ViT or
DINOv2 with a classification head also `class_logits` (B, C); scaling and normalisation are inside,
resizing is left to serving.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from export.errors import SourceError
from export.manifest import Source, TensorSpec
from export.revision import folder_revision
from export.sources.huggingface import load_model, read_json
from export.sources.source import GraphSource, ModelSource

DUAL = ("clip", "siglip", "siglip2", "chinese_clip")
IMAGE_ONLY = ("vit", "dinov2")
_HEADLESS = ("dual", "bare")
_WITH_HEAD = "AutoModelForImageClassification"
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


class ImageTower(torch.nn.Module):
    """Bytes to unit features: scaling, normalisation, the tower, L2 normalisation."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: Any, settings: Mapping[str, Any], kind: str) -> None:
        super().__init__()
        self.model = model
        self.kind = kind
        scale = float(settings.get("rescale_factor", 1 / 255))
        normalise = settings.get("do_normalize", True)
        mean = torch.tensor(settings["image_mean"] if normalise else [0.0] * 3)
        std = torch.tensor(settings["image_std"] if normalise else [1.0] * 3)
        self.register_buffer("mean", mean / scale, persistent=False)
        self.register_buffer("std", std / scale, persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """(B, H, W, 3) uint8 -> (B, D) float32, unit rows; with a head also logits (B, C)."""
        values = ((pixels.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        if self.kind == "dual":
            return _unit(self.model.get_image_features(pixel_values=values).pooler_output)
        base = self.model if self.kind == "bare" else self.model.base_model
        hidden = base(pixel_values=values).last_hidden_state  # (B, 1 + patches, D)
        # The class token, as both families' papers read it out.
        features = hidden[:, 0]
        if self.kind == "bare":
            return _unit(features)
        if self.kind == "dinov2":  # its head sees the patches' mean too
            return _unit(features), self.model.classifier(
                torch.cat([features, hidden[:, 1:].mean(1)], 1)
            )
        return _unit(features), self.model.classifier(features)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def read_image_encoder(folder: Path) -> ModelSource:
    """Read an image tower.

    Raises:
        SourceError: a file is missing, or the preprocessing is of a kind that is not known.
    """
    config = read_json(folder / "config.json")
    settings = read_json(folder / "preprocessor_config.json")
    if not {"image_mean", "image_std"} <= set(settings):
        raise SourceError(f"{folder}/preprocessor_config.json names no image_mean and image_std")
    kind = _kind(config)
    model: Any = load_model(folder, "AutoModel" if kind in _HEADLESS else _WITH_HEAD)
    if config["model_type"] == "siglip2":
        from export.sources import siglip2

        pixels = siglip2.side(settings, int(model.config.vision_config.patch_size))
        model = siglip2.Square(model, pixels)
        settings = {**settings, "size": pixels}
    height, width, rule = _size(settings)
    module = ImageTower(model, settings, kind).eval()
    with torch.inference_mode():
        found = module(torch.zeros((1, height, width, 3), dtype=torch.uint8))
    features, *logits = found if isinstance(found, tuple) else (found,)
    dimension = int(features.shape[-1])
    outputs = [TensorSpec("image_features", "float32", ("batch", dimension))]
    outputs += [TensorSpec("class_logits", "float32", ("batch", int(x.shape[-1]))) for x in logits]

    def sample(sizes: Mapping[str, int], generator: torch.Generator) -> tuple[torch.Tensor]:
        return (random_pixels(sizes["batch"], (height, width), generator),)

    graph = GraphSource(
        module,
        (TensorSpec("pixels", "uint8", ("batch", height, width, 3)),),
        tuple(outputs),
        sample,
        {"batch": (1, 3, 8, 16)},
        attention=int(getattr(model.config, "vision_config", model.config).num_hidden_layers),
    )
    metadata: dict[str, object] = {"dimension": dimension, "resize": rule}
    metadata |= {"height": height, "width": width}
    if logits:
        names: dict[int, str] = model.config.id2label
        metadata["classes"] = [names[index] for index in range(len(names))]
    return ModelSource(
        kind="image_encoder",
        source=Source(folder.name, folder_revision(folder)),
        graphs={"model": graph},
        metadata=metadata,
    )


def random_pixels(count: int, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Smooth colours with some noise, nearer to photos than noise alone: uint8 (n, H, W, 3)."""
    coarse = torch.rand((count, 3, 6, 6), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")
    noise = 0.05 * torch.randn(smooth.shape, generator=generator)
    pixels = ((smooth + noise).clamp(0, 1) * 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous()


def _kind(config: Mapping[str, Any]) -> str:
    """How the model is read out: `dual`, `bare`, or the family of one with a head."""
    family = str(config["model_type"])
    if family in DUAL:
        return "dual"
    architectures = [str(name) for name in config.get("architectures") or []]
    has_head = any(name.endswith("ForImageClassification") for name in architectures)
    return family if has_head else "bare"


def _size(settings: Mapping[str, Any]) -> tuple[int, int, str]:
    """Height, width, and in words what must be done to a picture before."""
    wanted = settings.get("crop_size" if settings.get("do_center_crop") else "size")
    wanted = settings.get("size") if wanted is None else wanted
    if isinstance(wanted, int):
        wanted = {"height": wanted, "width": wanted}
    if not isinstance(wanted, dict) or not {"height", "width"} <= set(wanted):
        raise SourceError(f"preprocessor_config.json: no fixed height and width, found {wanted}")
    height, width = int(wanted["height"]), int(wanted["width"])
    how = _FILTERS.get(int(settings.get("resample", 3)), "bicubic")
    crops = bool(settings.get("do_center_crop"))
    rule = "shorter side, centre crop" if crops else "stretch"
    return height, width, f"RGB, {rule} to {height}x{width} ({how}, antialiased)"
