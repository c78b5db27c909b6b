"""Weights files of the reference models: safetensors in fp16, each with a JSON card beside it.

The card says how the weights came to be: command, seed, data and score. Vectors (biases and
statistics) stay in float32: they are small, and fp16 would cost them more than it saves.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from export.reference.errors import ReferenceModelError

SHIPPED = Path(__file__).parent / "weights"


def load_weights(model: nn.Module, path: str | Path | None, name: str) -> None:
    """Fills `model` from `path`, or from the shipped weights called `name`.

    Raises: `ReferenceModelError` when the file is absent, broken or of another model.
    """
    file = Path(path) if path is not None else SHIPPED / f"{name}.safetensors"
    if not file.is_file():
        raise ReferenceModelError(f"expected the weights of {name} at {file}, found no such file")
    try:
        state = {key: _widened(value) for key, value in load_file(file).items()}
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise ReferenceModelError(
            f"{file} does not hold weights of {name}: {error}; train them anew"
        ) from error


def save_weights(model: nn.Module, file: Path, card: dict[str, object]) -> None:
    """Writes `file` (safetensors) and its card (`.json`), each at once or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {key: _narrowed(value) for key, value in model.state_dict().items()}
    part = file.with_suffix(".part")
    save_file(state, part)
    part.chmod(0o644)  # safetensors keeps its files to their owner
    part.replace(file)
    note = file.with_suffix(".json")
    part = note.with_suffix(".json.part")
    part.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(note)


def read_card(name: str) -> dict[str, object]:
    """The card of the shipped weights called `name`."""
    card: dict[str, object] = json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))
    return card


def _narrowed(value: Tensor) -> Tensor:
    narrow = value.is_floating_point() and value.ndim > 1
    return value.detach().to(torch.float16 if narrow else value.dtype).contiguous().clone()


def _widened(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
