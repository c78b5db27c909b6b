from pathlib import Path

import numpy as np
import pytest
import torch

from export.reference.catalogue import generate
from export.reference.errors import ReferenceModelError
from export.reference.image_encoder import DIM, SIZE, ImageEncoder
from export.reference.labels import CLOTHING
from export.reference.photos import cut
from export.reference.text_tower import class_rows, embed_texts
from export.reference.weights import SHIPPED, read_card, save_weights


@pytest.fixture(scope="module")
def shipped() -> ImageEncoder:
    return ImageEncoder.from_weights()


def test_rows_are_unit_and_do_not_depend_on_the_batch(shipped: ImageEncoder) -> None:
    pixels = torch.randint(0, 256, (5, SIZE, SIZE, 3), dtype=torch.uint8)
    with torch.inference_mode():
        together = shipped(pixels)
        alone = torch.cat([shipped(row[None]) for row in pixels])
    assert together.shape == (5, DIM)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_drawn_clothing_is_named_by_the_nearest_class_text(shipped: ImageEncoder) -> None:
    chosen = [
        c
        for c in generate(150, seed=77_001)  # a seed that no training drew
        if c.scene.product in CLOTHING and not c.scene.props and not c.scene.flaws
    ]
    pixels = torch.from_numpy(np.stack([cut(c.image) for c in chosen]))
    with torch.inference_mode():
        rows = shipped(pixels).numpy()
    named = (rows @ class_rows(CLOTHING)[-1].T).argmax(1)
    truth = np.array([CLOTHING.index(c.scene.product) for c in chosen])
    assert (named == truth).mean() > 0.5


def test_the_committed_weights_say_how_they_were_made() -> None:
    file, card = SHIPPED / "image_encoder.safetensors", read_card("image_encoder")
    assert file.stat().st_size <= 12_000_000
    score = card["score"]
    assert isinstance(score, dict)
    assert score["accuracy"] >= 0.78
    for key in ("command", "plan", "data", "resize"):
        assert card[key]
    assert "/work" not in file.with_suffix(".json").read_text("utf-8")


def test_weights_survive_a_round_trip(shipped: ImageEncoder, tmp_path: Path) -> None:
    save_weights(shipped, tmp_path / "copy.safetensors", {})
    again = ImageEncoder.from_weights(tmp_path / "copy.safetensors")
    for name, value in shipped.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=0, rtol=0, msg=name)


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceModelError, match="no such file"):
        ImageEncoder.from_weights(tmp_path / "absent.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(ReferenceModelError, match="does not hold weights"):
        ImageEncoder.from_weights(tmp_path / "broken.safetensors")
    with pytest.raises(ReferenceModelError, match="does not hold weights of image_encoder"):
        ImageEncoder.from_weights(SHIPPED / "semantic_id.safetensors")


def test_texts_keep_their_order_and_their_meaning() -> None:
    long = "a very long description of a completely different thing, " * 3
    rows = embed_texts(["red dress", long, "crimson gown"], batch=2)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows[0] @ rows[2] > rows[0] @ rows[1]
