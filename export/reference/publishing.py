"""From trained weights to a published bundle: the weights go through the exporter's own path."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from export.bundle import Bundle
from export.pipeline import publish
from export.reference.progress import progress
from export.reference.weights import save_weights
from export.repository import Repository
from export.sources.source import ModelSource


def publish_weights(
    model: nn.Module,
    card: dict[str, object],
    name: str,
    out: Path,
    read: Callable[[Path], ModelSource],
) -> Bundle:
    """Writes weights and card under `out/.training/<name>/`, then publishes them as a bundle.

    Args:
        read: turns the weights file into what the exporter takes.

    Raises: `ExportError` when the graph does not compute what the model does, or `out` is no
        place to write to.
    """
    file = training_folder(out, name) / f"{name}.safetensors"
    save_weights(model, file, card)
    with progress(f"publish {name}", 1) as advance:
        bundle = publish(read(file), Repository(out), name, advance_note(advance))
        advance(f"{bundle.manifest.name} {bundle.manifest.version}")
    return bundle


def training_folder(out: Path, name: str) -> Path:
    """Where checkpoints and weights lie: beside the bundles, and not one of them."""
    return out / ".training" / name


def advance_note(advance: Callable[..., None]) -> Callable[[str], None]:
    """Shows what the exporter is doing without moving the bar."""
    return lambda note: advance(note, steps=0)
