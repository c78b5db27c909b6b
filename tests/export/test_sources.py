"""Readers of the reference models, on random weights of the real architectures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from export import Repository, parity
from export.errors import SourceError
from export.pipeline import publish
from export.reference.image_encoder import ImageEncoder
from export.semantic_id.model import NAMES, SemanticId
from export.semantic_id.search import on_grid
from export.sources.own import read_image_encoder
from export.sources.semantic_id import (
    ExactEncoder,
    read_semantic_id,
    semantic_id_graphs,
    tried_on,
)

ENCODERS = {"image_encoder": "sha256:01", "text_encoder": "sha256:02"}


def _save(module: torch.nn.Module, folder: Path) -> Path:
    file = folder / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, file)
    file.with_suffix(".json").write_text(json.dumps({"seed": 0, "encoders": ENCODERS}))
    return file


@pytest.fixture(scope="module")
def tokenizer() -> SemanticId:
    generator = torch.Generator().manual_seed(0)
    model = SemanticId()
    model.basis.copy_(torch.linalg.qr(torch.randn(model.basis.shape, generator=generator))[0])
    for level in range(len(NAMES)):
        entries = model.keys(level)
        entries.copy_(on_grid(0.05 * torch.randn(entries.shape, generator=generator)))
        model.bias(level).copy_(1e-3 * torch.randn(len(entries), generator=generator))
        model.values(level).copy_(entries @ model.basis.T)
    return model


def test_the_image_tower(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = read_image_encoder(_save(ImageEncoder(), tmp_path))
    bundle = publish(source, Repository(tmp_path / "repo"), "image_encoder", lambda _: None)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), np.uint8)
    (features,) = parity.open_session(bundle.path()).run(["image_features"], {"pixels": pixels})
    assert features.shape == (5, 384)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    assert bundle.manifest.metadata["height"] == 96
    assert bundle.manifest.parity[0].cosine is not None
    assert bundle.manifest.parity[0].cosine >= 0.99999


def test_the_tokenizer_has_two_graphs_and_names_its_encoders(
    tmp_path: Path, tokenizer: SemanticId
) -> None:
    source = tried_on(read_semantic_id(_save(tokenizer, tmp_path)), 7000)
    bundle = publish(source, Repository(tmp_path / "repo"), "semantic_id", lambda _: None)
    manifest = bundle.manifest
    assert {name: graph.file for name, graph in manifest.graphs.items()} == {
        "encode": "encode.onnx",
        "decode": "decode.onnx",
    }
    assert manifest.metadata["encoders"] == ENCODERS
    codes = next(figure for figure in manifest.parity if figure.output == "codes")
    assert codes.flip_rate == 0
    assert codes.rows == 3 * 7000 + 1
    assert set(codes.batch_sizes) == {1, 64, 1024}
    encode, decode = (parity.open_session(bundle.path(name)) for name in ("encode", "decode"))
    features = torch.nn.functional.normalize(torch.randn(7, 384), dim=1).numpy()
    found, margin = encode.run(["codes", "margin"], {"features": features})
    assert (found.dtype, margin.dtype) == (np.int32, np.float32)
    (back,) = decode.run(["features_hat"], {"codes": found})
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, atol=1e-6)


def test_exact_codes_are_those_of_the_source_away_from_ties(tokenizer: SemanticId) -> None:
    graph = semantic_id_graphs(tokenizer)["encode"]
    (features,) = graph.sample({"batch": 512}, torch.Generator().manual_seed(3))
    codes, margin = graph.module(features)
    expected, expected_margin = tokenizer.encode(features)
    clear = (margin > 1e-5).all(1)
    assert clear.float().mean() > 0.9
    assert torch.equal(codes[clear], expected[clear])
    torch.testing.assert_close(margin[clear], expected_margin[clear], atol=1e-5, rtol=0)


def test_true_ties_go_to_the_lowest_index(tokenizer: SemanticId) -> None:
    model = SemanticId()
    model.load_state_dict(tokenizer.state_dict())
    for level in range(len(NAMES)):
        for table in (model.keys(level), model.bias(level)):
            table[1::2] = table[::2]  # every entry twice
    graph = semantic_id_graphs(model)["encode"]
    (features,) = graph.sample({"batch": 256}, torch.Generator().manual_seed(4))
    codes, margin = graph.module(features)
    assert (codes % 2 == 0).all()
    assert (margin == 0).all()


def test_the_arithmetic_is_exact_in_any_order(tokenizer: SemanticId) -> None:
    """Permuting the dimensions permutes every sum; nothing may change, not even the margin."""
    order = torch.randperm(384, generator=torch.Generator().manual_seed(5))
    turned = SemanticId()
    turned.load_state_dict(tokenizer.state_dict())
    turned.basis.copy_(tokenizer.basis[order])
    turned.mean.copy_(tokenizer.mean[order])
    graph = semantic_id_graphs(tokenizer)["encode"]
    (features,) = graph.sample({"batch": 256}, torch.Generator().manual_seed(6))
    plain, other = ExactEncoder(tokenizer)(features), ExactEncoder(turned)(features[:, order])
    assert torch.equal(plain[0], other[0])
    assert torch.equal(plain[1], other[1])


def test_weights_without_a_card_are_refused(tmp_path: Path) -> None:
    file = _save(ImageEncoder(), tmp_path)
    file.with_suffix(".json").unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        read_image_encoder(file)
