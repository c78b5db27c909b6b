"""The JSON card beside a weights file: the command, seed, data and score that made it."""

from pathlib import Path

from export.sources.huggingface import read_json


def read_card(weights: Path) -> dict[str, object]:
    """Read it. Raises SourceError where it is missing or is something else."""
    return read_json(weights.with_suffix(".json"))
