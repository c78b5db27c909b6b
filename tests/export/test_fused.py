"""Tower and tokenizer as one graph: the very bits that they give apart."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export import Repository, parity
from export.__main__ import main
from export.errors import ParityError, SourceError
from export.fusion import Chain, write_stages
from export.manifest import Source, TensorSpec
from export.pipeline import publish
from export.sources import fused
from export.sources.fused import fuse
from export.sources.image import random_pixels
from export.sources.source import GraphSource, ModelSource

WIDTH, SIZE = 12, 8


class Tower(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(SIZE * SIZE * 3, WIDTH)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = self.layer(pixels.float().flatten(1) / 255)
        return torch.nn.functional.normalize(rows, dim=-1)


class Tokenizer(torch.nn.Module):
    """The nearest of 32 entries, in whole numbers, as the real one searches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.register_buffer("table", (torch.randn(WIDTH, 32) * 2**20).round().double())

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        score = (features.double() * 2**20).round() @ self.table
        best = score.topk(2, dim=1).values
        return score.argmax(1, keepdim=True).int(), (best[:, :1] - best[:, 1:]).float()


def _tower(revision: str = "sha256:01") -> ModelSource:
    graph = GraphSource(
        Tower().eval(),
        (TensorSpec("pixels", "uint8", ("batch", SIZE, SIZE, 3)),),
        (TensorSpec("image_features", "float32", ("batch", WIDTH)),),
        lambda sizes, generator: (random_pixels(sizes["batch"], (SIZE, SIZE), generator),),
        {"batch": (1, 3, 8)},
    )
    return ModelSource(
        "image_encoder", Source("tower", revision), {"model": graph}, metadata={"a": 1}
    )


def _tokenizer(width: int = WIDTH) -> ModelSource:
    def sample(sizes: object, generator: torch.Generator) -> tuple[torch.Tensor]:
        rows = torch.randn((sizes["batch"], WIDTH), generator=generator)  # type: ignore[index]
        return (torch.nn.functional.normalize(rows, dim=-1),)

    graph = GraphSource(
        Tokenizer().eval(),
        (TensorSpec("features", "float32", ("batch", width)),),
        (TensorSpec("codes", "int32", ("batch", 1)), TensorSpec("margin", "float32", ("batch", 1))),
        sample,
        {"batch": (1, 64)},
        2048,
    )
    metadata = {"levels": ["L"], "sizes": [32], "encoders": {"image_encoder": "sha256:01"}}
    return ModelSource(
        "semantic_id", Source("t", "sha256:02"), {"encode": graph}, metadata=metadata
    )


@pytest.fixture
def fused_source(monkeypatch: pytest.MonkeyPatch) -> ModelSource:
    monkeypatch.setattr(fused, "read_semantic_id", lambda weights: _tokenizer())
    return fuse(_tower(), "semantic_id", rows=2048)


def test_one_graph_gives_the_bits_of_two(tmp_path: Path, fused_source: ModelSource) -> None:
    bundle = publish(fused_source, Repository(tmp_path), "image_encoder", lambda _: None)
    manifest = bundle.manifest
    assert [t.name for t in manifest.graphs["model"].outputs] == [
        "image_features",
        "codes",
        "margin",
    ]
    assert manifest.metadata["tokenizer"] == {"source": "t", "revision": "sha256:02"}
    joined = [figure for figure in manifest.parity if figure.graph == "model"]
    assert [figure.max_abs_error for figure in joined] == [0, 0, 0]
    assert joined[0].rows >= 512
    assert {figure.graph for figure in manifest.parity} == {"model", "image", "encode"}
    parts = []
    for name, source in (("image_encoder", _tower()), ("semantic_id", _tokenizer())):
        apart = publish(source, Repository(tmp_path / "apart"), name, lambda _: None)
        parts.append(parity.open_session(next(iter(apart.directory.glob("*.onnx")))))
    pixels = np.random.default_rng(0).integers(0, 256, (700, SIZE, SIZE, 3), np.uint8)
    found = parity.open_session(bundle.path()).run(None, {"pixels": pixels})
    (features,) = parts[0].run(None, {"pixels": pixels})
    codes, margin = parts[1].run(None, {"features": features})
    for one, other in zip(found, (features, codes, margin), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_bits_are_no_bundle(
    tmp_path: Path, fused_source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Chain.forward

    def other(self: Chain, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features, codes, margin = forward(self, *inputs)
        return features, codes, margin * 2

    monkeypatch.setattr(Chain, "forward", other)
    with pytest.raises(ParityError, match="margin differs"):
        write_stages(fused_source.graphs["model"], tmp_path / "model.onnx", lambda _: None)


def test_what_cannot_be_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "read_semantic_id", lambda weights: _tokenizer(WIDTH + 1))
    with pytest.raises(SourceError, match="takes 13 numbers, not 12"):
        fuse(_tower(), "semantic_id")
    with pytest.raises(SourceError, match="its codes would mean nothing"):
        fuse(_tower("sha256:99"), "semantic_id")
    with pytest.raises(SourceError, match="needs an image encoder"):
        fuse(_tokenizer(), "semantic_id")
    with pytest.raises(SourceError, match="weights file"):
        fuse(_tower(), "nowhere.safetensors")


def test_ids_are_exact_or_not_at_all(
    tmp_path: Path,
    fused_source: ModelSource,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("export.sources.families.open_source", lambda spec, kind: _tower())
    command = ["onnx", "tower", "--out", str(tmp_path / "repo"), "--name", "image_encoder"]
    assert main([*command, "--fuse", "semantic_id", "--precision", "int8"]) == 2
    assert "export it in fp32" in capsys.readouterr().err
    assert main([*command, "--fuse", "semantic_id", "--rows", "500", "--dry-run"]) == 0
    assert "codes: int32 (batch, 1)" in capsys.readouterr().out
