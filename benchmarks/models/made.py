"""Bundles that figures about speed are made with: real architectures, random weights.

In: a folder and a size. Out: a repository with an image tower (fp32 and INT8), a DLRM-shaped
graph, and a small model; made once, by the project's own exporter, and found again later. Their
answers mean nothing, their cost does.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export import Repository
from export.errors import NotFoundError

FOLDER = Path("var/bench-models")
VIT, VIT_INT8, DLRM, SMALL = "vit", "vit_int8", "dlrm_mlperf", "small"
MINILM = "minilm"
NAMES = (VIT, VIT_INT8, DLRM, SMALL)  # that every run serves


@dataclass(frozen=True, slots=True)
class Size:
    """Of the image tower (ViT-B/32 in full), the text tower and the DLRM (shorter tables).

    Sources: MLPerf inference, recommendation/dlrm (v0.7-v3.0, Criteo Terabyte): 13 dense features,
    26 tables of width 128, bottom MLP 512-256-128, top MLP 1024-1024-512-256-1. Text: config.json
    of sentence-transformers/all-MiniLM-L6-v2.
    """

    name: str
    tower: Mapping[str, int]
    image: Mapping[str, int]
    text: Mapping[str, int]
    dense: int = 13
    sparse: int = 26
    rows: int = 10_000  # of each embedding table
    width: int = 128
    top: tuple[int, ...] = (1024, 1024, 512, 256)


FULL = Size(
    "full",
    {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    {"image_size": 224, "patch_size": 32},
    {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "vocab_size": 30_522,
        "max_position_embeddings": 512,
    },
)
TINY = Size(
    "tiny",
    {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    {"image_size": 64, "patch_size": 32},
    {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 100,
        "max_position_embeddings": 128,
    },
    rows=100,
    width=8,
    top=(64, 32),
)


def repository(size: Size, folder: Path = FOLDER, names: Sequence[str] = NAMES) -> Path:
    """The repository's folder; makes those of `names` that are missing (minutes at full size)."""
    place = folder / size.name
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            Repository(place).open(name)
        except NotFoundError:
            print(f"making the bundle {name} ({size.name})", file=sys.stderr)
            _make(name, size, place)
    return place


def again(name: str, place: Path) -> None:
    """A second version of a bundle, to roll out, if there is only one: the same files."""
    repository = Repository(place)
    if len(repository.versions(name)) < 2:
        repository.publish(repository.open(name))


def _make(name: str, size: Size, place: Path) -> None:
    from export.pipeline import Wanted, publish

    makers: Any = {DLRM: _dlrm, SMALL: _small, MINILM: _minilm}
    source: Any = makers.get(name, tower)(size, place)
    wanted = Wanted("int8" if name == VIT_INT8 else "fp32")
    publish(source, Repository(place), name, lambda _: None, wanted)


def tower(size: Size, place: Path) -> Any:
    """The vision tower of CLIP, as `python -m export onnx FOLDER` reads it."""
    import torch
    import transformers

    from export.sources.families import open_source

    folder = place / "source"
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        library: Any = transformers
        library.utils.logging.disable_progress_bar()
        tower = library.ViTModel(library.ViTConfig(**size.tower, **size.image))
        tower.save_pretrained(folder, safe_serialization=True)
        side = size.image["image_size"]
        preprocessing = {
            "size": {"height": side, "width": side},
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "resample": 3,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_processor_type": "ViTImageProcessor",
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return open_source(str(folder), None)


def _dlrm(size: Size, place: Path) -> Any:
    from .graphs import dlrm

    del place
    return dlrm(size.dense, size.sparse, size.rows, size.width, size.top)


def _small(size: Size, place: Path) -> Any:
    from .graphs import small

    del size, place
    return small()


def _minilm(size: Size, place: Path) -> Any:
    from .texts import tower as text_tower

    del place
    return text_tower(size.text)
