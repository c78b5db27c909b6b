"""Small bundles, made without torch."""

from collections.abc import Callable
from pathlib import Path

import pytest

from export.bundle import Bundle
from export.manifest import Graph, Manifest, Source, TensorSpec

MakeDraft = Callable[..., Bundle]


@pytest.fixture
def make_draft(tmp_path: Path) -> MakeDraft:
    """Write a draft folder with two files, one in a sub-folder."""

    def make(name: str = "encoder", payload: bytes = b"weights") -> Bundle:
        folder = tmp_path / f"draft-{name}-{payload.hex()}"
        (folder / "sub").mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(payload)
        (folder / "sub" / "tokenizer.json").write_bytes(b"{}")
        graph = Graph(
            "model.onnx",
            (TensorSpec("x", "float32", ("batch", 4)),),
            (TensorSpec("y", "float32", ("batch", 2)),),
        )
        manifest = Manifest(
            name=name,
            kind="text_encoder",
            precision="fp32",
            graphs={"model": graph},
            source=Source("test", "sha256:00"),
            metadata={"dimension": 2},
        )
        return Bundle.draft(folder, manifest)

    return make
