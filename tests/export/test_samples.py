"""Real inputs for parity: photos, texts and vectors, or a clear refusal."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export import shipped
from export.errors import SourceError
from export.sources.samples import with_samples
from export.sources.source import ModelSource


def _draw(source: ModelSource, batch: int, sequence: int = 1) -> tuple[torch.Tensor, ...]:
    graph = next(iter(source.graphs.values()))
    sizes = {"batch": batch, "sequence": sequence}
    return graph.sample(sizes, torch.Generator().manual_seed(0))


def test_photos_are_cut_to_the_tower(tmp_path: Path) -> None:
    (tmp_path / "shoes").mkdir()
    Image.new("RGB", (300, 100), (255, 0, 0)).save(tmp_path / "shoes" / "one.png")
    (pixels,) = _draw(with_samples(shipped.read("image_encoder"), tmp_path), 5)
    assert pixels.shape == (5, 96, 96, 3)
    assert pixels.dtype == torch.uint8
    assert (pixels == torch.tensor([255, 0, 0], dtype=torch.uint8)).all()


def test_texts_are_tokenized_and_padded(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("red shoes\n\n" + "shoe " * 300 + "\n")
    source = with_samples(shipped.read("text_encoder"), file)
    ids, mask = _draw(source, 20, 128)
    assert ids.shape == mask.shape == (20, 128)
    assert set(mask.sum(1).tolist()) == {4, 128}
    assert _draw(source, 3, 2)[0].tolist() == [[101, ids[row, 1]] for row in range(3)]


def test_vectors_are_made_unit_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", 3 * np.ones((7, 384), np.float16))
    (features,) = _draw(with_samples(shipped.read("semantic_id"), tmp_path / "rows.npy"), 7)
    assert features.shape == (7, 384)
    assert torch.equal(features, features[:1].expand(7, -1))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(7))


def test_after_all_vectors_come_perturbed_copies(tmp_path: Path) -> None:
    real = torch.nn.functional.normalize(torch.from_numpy(np.eye(5, 384, dtype=np.float32)), dim=1)
    np.save(tmp_path / "rows.npy", real.numpy())
    (features,) = _draw(with_samples(shipped.read("semantic_id"), tmp_path / "rows.npy"), 2000)
    assert torch.equal(features[:5].sort(0).values, real.sort(0).values)
    away = (features[5:, None] - real).norm(dim=2).min(1).values
    assert 0 < float(away.min()) < 1e-5
    assert 5e-2 < float(away.max()) < 0.11
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2000))


@pytest.mark.parametrize("name", shipped.NAMES)
def test_what_is_no_sample_is_refused(name: str, tmp_path: Path) -> None:
    source = shipped.read(name)
    with pytest.raises(SourceError, match="no such samples"):
        with_samples(source, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError):
        with_samples(source, tmp_path / "empty")
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError):
        with_samples(source, tmp_path / "bad.jpg" if name != "image_encoder" else tmp_path)
    np.save(tmp_path / "narrow.npy", np.ones((7, 3)))
    with pytest.raises(SourceError):
        with_samples(source, tmp_path / "narrow.npy")
