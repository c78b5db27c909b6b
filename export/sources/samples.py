"""Real inputs for parity: photos, texts or vectors instead of random ones.

In: a folder of pictures, a file with a text a line, or an `.npy` of vectors. Out: the same
`ModelSource`, whose graphs are tried on draws of these. Which of them a graph takes is known from
the name of its first input.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from export.errors import SourceError
from export.progress import counted
from export.sources.source import GraphSource, ModelSource, Sampler

# Pictures or texts, evenly from all that there are. Each is run at several batch sizes.
MOST = 256
Item = TypeVar("Item")
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def with_samples(source: ModelSource, path: Path) -> ModelSource:
    """Try the graphs that take such inputs on the samples; the others as before.

    Raises:
        SourceError: nothing to read there, or no graph that takes it.
    """
    if not path.exists():
        raise SourceError(f"{path}: there are no such samples")
    graphs = dict(source.graphs)
    used = [name for name, graph in graphs.items() if graph.inputs[0].name in _READERS]
    for name in used:
        graph = graphs[name]
        sampler = _READERS[graph.inputs[0].name](path, graph, source)
        graphs[name] = replace(graph, sample=sampler, rows=max(graph.rows, MOST))
    if not used:
        raise SourceError(f"samples are for {sorted(_READERS)}, which no graph of this model takes")
    return replace(source, graphs=graphs)


def _photos(path: Path, graph: GraphSource, source: ModelSource) -> Sampler:  # noqa: ARG001
    import numpy as np
    from PIL import Image, ImageOps

    if not path.is_dir():
        raise SourceError(f"{path}: expected a folder of pictures")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _PICTURES)
    if not files:
        raise SourceError(f"{path}: there is no picture ({', '.join(_PICTURES)}) below it")
    height, width = (int(size) for size in graph.inputs[0].shape[1:3])
    rows, chosen = [], _evenly(files)
    with counted("reading photos", len(chosen)) as advance:
        for file in chosen:
            try:
                with Image.open(file) as image:
                    picture = ImageOps.exif_transpose(image).convert("RGB")
            except OSError as error:
                raise SourceError(f"{file} cannot be read: {error}") from error
            fitted = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
            rows.append(np.asarray(fitted))
            advance(1)
    pixels = torch.from_numpy(np.stack(rows))

    def sample(sizes: Mapping[str, int], generator: torch.Generator) -> tuple[torch.Tensor]:
        return (pixels[_choice(len(pixels), sizes["batch"], generator)],)

    return sample


def _texts(path: Path, graph: GraphSource, source: ModelSource) -> Sampler:  # noqa: ARG001
    from tokenizers import Tokenizer

    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: expected a file with a text a line: {error}") from error
    if not lines:
        raise SourceError(f"{path}: there is no text in it")
    tokenizer = Tokenizer.from_str(source.files["tokenizer.json"].decode())
    rows = tokenizer.encode_batch(_evenly(lines))
    ids = torch.tensor([row.ids for row in rows])
    masks = torch.tensor([row.attention_mask for row in rows])
    padding = _pad_id(source)

    def sample(
        sizes: Mapping[str, int], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = _choice(len(ids), sizes["batch"], generator)
        wanted = sizes["sequence"]
        missing = (0, max(0, wanted - ids.shape[1]))
        pad = torch.nn.functional.pad
        return (
            pad(ids[chosen], missing, value=padding)[:, :wanted],
            pad(masks[chosen], missing)[:, :wanted],
        )

    return sample


def _vectors(path: Path, graph: GraphSource, source: ModelSource) -> Sampler:  # noqa: ARG001
    import numpy as np

    try:
        rows = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: expected an .npy of vectors: {error}") from error
    if rows.ndim != 2 or rows.shape[1:] != graph.inputs[0].shape[1:] or not len(rows):
        raise SourceError(f"{path}: expected (n, {graph.inputs[0].shape[1]}), found {rows.shape}")
    units = torch.nn.functional.normalize(torch.from_numpy(rows), dim=1)

    def sample(sizes: Mapping[str, int], generator: torch.Generator) -> tuple[torch.Tensor]:
        """Each row as it is before any comes again, and then as a copy that is a little off."""
        drawn = units[_choice(len(units), sizes["batch"], generator)]
        copies = drawn[len(units) :]
        scale = 10 ** (-1 - 5 * torch.rand((len(copies), 1), generator=generator))
        noise = torch.nn.functional.normalize(torch.randn(copies.shape, generator=generator), dim=1)
        moved = torch.nn.functional.normalize(copies + scale * noise, dim=1)
        return (torch.cat([drawn[: len(units)], moved]),)

    return sample


def _evenly(items: list[Item]) -> list[Item]:
    """At most `MOST` of them, from the first to the last."""
    count = min(len(items), MOST)
    return [items[index * len(items) // count] for index in range(count)]


def _choice(count: int, wanted: int, generator: torch.Generator) -> torch.Tensor:
    """Rows in random order, each once before any comes again."""
    rounds = -(-wanted // count)
    return torch.cat([torch.randperm(count, generator=generator) for _ in range(rounds)])[:wanted]


def _pad_id(source: ModelSource) -> int:
    settings = source.metadata.get("tokenizer")
    return int(settings["pad_id"]) if isinstance(settings, dict) else 0


_READERS: Mapping[str, Callable[[Path, GraphSource, ModelSource], Sampler]] = {
    "pixels": _photos,
    "input_ids": _texts,
    "features": _vectors,
}
