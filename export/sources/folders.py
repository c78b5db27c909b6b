"""A model's folder that is not there: said at once, with what to do about a hub id.

In: what was named as a source. Out: an error. No torch in here.
"""

from pathlib import Path

from export.errors import SourceError


def by_hand(name: str) -> str:
    """How a hub id becomes a folder without us."""
    return f"(`hf download {name} --local-dir FOLDER`) and name the folder"


def missing(spec: str) -> SourceError:
    """What to say where `spec` is no folder."""
    if Path(spec).is_absolute() or spec.count("/") != 1:
        return SourceError(f"{spec}: there is no such folder")
    return SourceError(
        f"{spec}: there is no such folder. If this is a hub id, nothing is downloaded unasked: "
        f"fetch it first {by_hand(spec)}, or let `export onnx` do so (--download)"
    )
