"""The tokenizer itself: codes, margins, the way back, its files."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from export import shipped as bundles
from export.reference.errors import ReferenceModelError
from export.reference.weights import SHIPPED, read_card, save_weights
from export.semantic_id import measures
from export.semantic_id.measures import in_batches
from export.semantic_id.model import NAMES, SIZES, SemanticId
from tests.export_reference.semantic_id_support import SMALL, Learned, vectors


@pytest.fixture(scope="module")
def shipped() -> SemanticId:
    return SemanticId.from_weights()


def test_codes_are_in_range_and_their_margins_positive(shipped: SemanticId) -> None:
    codes, margin = shipped.encode(torch.from_numpy(vectors(200, seed=2, dimension=384)))
    assert codes.shape == margin.shape == (200, 6)
    assert codes.dtype == torch.int32
    assert bool((margin >= 0).all())
    assert bool((codes >= 0).all())
    assert bool((codes < torch.tensor(SIZES)).all())


def test_decoding_gives_back_most_of_the_feature(
    learned: Learned,
) -> None:
    model, report = learned
    rows = torch.from_numpy(vectors(300, seed=4))
    back = model.decode(model.encode(rows)[0])
    torch.testing.assert_close(back.norm(dim=1), torch.ones(300))
    assert float(F.cosine_similarity(back, rows).mean()) > 0.7
    held, train = report["relative_mse_held_out"], report["relative_mse_train"]
    assert isinstance(held, float)
    assert isinstance(train, float)
    assert train <= held < 1


def test_every_level_is_used_evenly(learned: Learned) -> None:
    levels = measures.usage(
        in_batches(torch.from_numpy(vectors(3000, seed=1)), learned[0]).numpy(), SMALL
    )
    assert [level["entries"] for level in levels] == list(SMALL)
    assert min(level["perplexity_over_k"] for level in levels) > 0.6


def test_sizes_come_back_from_a_file(learned: Learned, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_weights(learned[0], file, {})
    back = SemanticId.from_weights(file)
    assert (back.sizes, back.dimension) == (SMALL, 48)
    rows = torch.from_numpy(vectors(300, seed=6))
    for level in range(len(NAMES)):
        assert torch.equal(back.keys(level), learned[0].keys(level))
    first = learned[0].encode(rows)[0][:, 0]
    assert float((back.encode(rows)[0][:, 0] == first).float().mean()) > 0.99


def test_the_committed_codebooks_name_their_encoders() -> None:
    file, card = SHIPPED / "semantic_id.safetensors", read_card("semantic_id")
    assert file.stat().st_size <= 12_000_000
    encoders = card["encoders"]
    assert isinstance(encoders, dict)
    assert encoders == {
        name: bundles.source(name).revision for name in ("image_encoder", "text_encoder")
    }
    report = card["report"]
    assert isinstance(report, dict)
    assert report["relative_mse_held_out"] < 0.5


def test_wrong_codebooks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceModelError, match="found no such file"):
        SemanticId.from_weights(tmp_path / "absent.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(ReferenceModelError, match="does not hold weights"):
        SemanticId.from_weights(tmp_path / "broken.safetensors")
