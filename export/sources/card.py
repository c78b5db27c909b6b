"""The project's own weights: a safetensors file, and the JSON card that says how it was made."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from export.errors import SourceError
from export.reference.errors import ReferenceModelError
from export.sources.huggingface import read_json

Module = TypeVar("Module")


def read_card(weights: Path) -> dict[str, object]:
    """The command, seed, data and score. Raises SourceError where there is no such card."""
    return read_json(weights.with_suffix(".json"))


def load_own(from_weights: Callable[[Path], Module], weights: Path) -> Module:
    """A reference module with these weights. Raises SourceError where they do not fit."""
    try:
        return from_weights(weights)
    except ReferenceModelError as error:
        raise SourceError(str(error)) from error
