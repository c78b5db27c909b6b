"""Tokenizers by name: ours, or residual quantizers that were learned elsewhere.

In: `semantic_id` (the shipped one), a folder or a file of safetensors. Out: a `ModelSource` that is
published through the same gate as every tokenizer: many vectors at batch 1, 64 and 1024, and not
one code that differs.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from export.errors import SourceError
from export.manifest import Source
from export.revision import file_revision
from export.semantic_id.model import NAMES, SemanticId
from export.semantic_id.search import on_grid
from export.sources.semantic_id import (
    GATE_ROWS,
    WEIGHTS,
    read_semantic_id,
    semantic_id_graphs,
    tried_on,
)
from export.sources.source import ModelSource

SHIPPED_NAME = "semantic_id"
# How others name the codebooks of a residual quantizer, level by level.
_PATTERNS = ("codebooks.{}", "layers.{}._codebook.embed", "layers.{}.codebook")


def open_tokenizer(spec: str, rows: int = GATE_ROWS) -> ModelSource:
    """Read the tokenizer that `spec` names, to be compared on `rows` vectors at every batch size.

    A folder is a bundle of ours or one that training left: it holds `semantic_id.safetensors`.
    Any other safetensors file is taken for a residual quantizer if it has six codebooks (K, D),
    named `codebooks.0` ... `codebooks.5` or as vector-quantize-pytorch names them.

    Raises: SourceError when there is nothing there, or something else.
    """
    return tried_on(_read(spec), rows)


def _read(spec: str) -> ModelSource:
    if spec == SHIPPED_NAME:
        return read_semantic_id()
    path = Path(spec)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise SourceError(
            f"{file}: expected a tokenizer's weights, found no such file; name a bundle's folder, "
            f"a .safetensors file, or {SHIPPED_NAME!r} for the shipped one"
        )
    try:
        state = load_file(file)
    except SafetensorError as error:
        raise SourceError(
            f"{file}: expected safetensors: {error}; other formats can run code as they are read"
        ) from error
    if "basis" in state:
        return read_semantic_id(file)
    return _residual(file, state)


def _residual(file: Path, state: dict[str, Tensor]) -> ModelSource:
    """A chain of codebooks: each codes what those before leave, and their sum is the feature.

    Its entries are rounded to the grid of the exact search (docs/decisions/0035): near ties can
    fall otherwise than in the code that learned it, and then do so everywhere alike.
    """
    books = _codebooks(file, state)
    sizes = tuple(len(book) for book in books)
    dimension = books[0].shape[1]
    model = SemanticId(sizes, dimension, dimension)
    model.carry.fill_(1.0)
    model.again.fill_(0.0)
    for level, book in enumerate(books):
        model.keys(level).copy_(on_grid(book))
        model.values(level).copy_(on_grid(book))
    return ModelSource(
        kind="semantic_id",
        source=Source(f"residual/{file.stem}", file_revision(file)),
        graphs=semantic_id_graphs(model.eval()),
        files={},
        metadata={
            "dimension": dimension,
            "levels": list(NAMES),
            "sizes": list(sizes),
            "encoders": None,
            "card": {"data": f"a residual quantizer learned elsewhere: {file.name}"},
        },
    )


def _codebooks(file: Path, state: dict[str, Tensor]) -> list[Tensor]:
    for pattern in _PATTERNS:
        names = [pattern.format(level) for level in range(len(NAMES))]
        if all(name in state for name in names) and pattern.format(len(NAMES)) not in state:
            books = [state[name].float() for name in names]
            books = [book[0] if book.ndim == 3 and len(book) == 1 else book for book in books]
            break
    else:
        raise SourceError(
            f"{file}: expected our weights (`basis`, ...) or {len(NAMES)} codebooks named "
            f"{_PATTERNS[0].format(0)} ..., found {sorted(state)[:5]}"
        )
    shapes = [tuple(book.shape) for book in books]
    if any(len(shape) != 2 or shape[0] < 2 or shape[1] != shapes[0][-1] for shape in shapes):
        raise SourceError(f"{file}: expected codebooks (K, D) of one D, found {shapes}")
    longest = max(float(book.norm(dim=1).max()) for book in books)
    if not longest < 2 or not all(bool(torch.isfinite(book).all()) for book in books):
        raise SourceError(
            f"{file}: expected entries in the space of unit rows (length below 2), the longest "
            f"has {longest:.3g}: learn it on normalised rows"
        )
    return books
