"""`python -m export semantic_id`: tokenizers of ours and of others, through the same gate."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from export import Repository, parity
from export.__main__ import main
from export.errors import SourceError
from export.reference.weights import save_weights
from export.semantic_id.model import NAMES, SIZES, SemanticId
from export.semantic_id.search import on_grid
from export.sources.semantic_id import GATE_ROWS, WEIGHTS
from export.sources.tokenizers import open_tokenizer

SMALL = (8, 8, 16, 16, 32, 32)
D = 24


def codebooks() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        on_grid(torch.randn(size, D, generator=generator) * 0.2 / (level + 1))
        for level, size in enumerate(SMALL)
    ]


def rows(count: int) -> np.ndarray:
    made = np.random.default_rng(1).normal(size=(count, D)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_another_residual_quantizer_gives_the_codes_it_always_gave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    books = codebooks()
    state = {f"layers.{i}._codebook.embed": book[None].clone() for i, book in enumerate(books)}
    save_file(state, tmp_path / "rq.safetensors")
    repository = tmp_path / "models"
    argv = ["semantic_id", str(tmp_path / "rq.safetensors"), "--out", str(repository)]
    np.save(tmp_path / "rows.npy", rows(300))
    assert main([*argv, "--samples", str(tmp_path / "rows.npy"), "--rows", "600"]) == 0
    assert "encode" in capsys.readouterr().out
    bundle = Repository(repository).open("semantic_id")
    gate = [each for each in bundle.manifest.parity if each.output == "codes"]
    assert [each.flip_rate for each in gate] == [0.0]
    assert (gate[0].rows, gate[0].batch_sizes) == (600 + 600 + 1024 + 1, (1, 64, 1024, 1))
    features = rows(400)
    session = parity.open_session(bundle.path("encode"))
    codes, margin = session.run(["codes", "margin"], {"features": features})
    left, total = features.astype(np.float64), 0.0
    sure = np.ones(len(features), bool)
    for level, book in enumerate(np.stack([b]) for b in (b.double().numpy() for b in books)):
        distance = ((left[:, None] - book) ** 2).sum(2)
        sure &= margin[:, level] > 2e-3  # what the grid may move
        assert np.array_equal(distance.argmin(1)[sure], codes[sure, level])
        left = left - book[0][codes[:, level]]
        total = total + book[0][codes[:, level]]
    assert sure.sum() > 200
    found = parity.open_session(bundle.path("decode")).run(None, {"codes": codes})[0]
    wanted = total / np.linalg.norm(total, axis=1, keepdims=True)
    assert np.allclose(found, wanted, atol=1e-5)


def test_a_folder_that_training_left_is_read_with_its_weights(tmp_path: Path) -> None:
    model = SemanticId(SMALL, D, 8)
    generator = torch.Generator().manual_seed(0)
    for level in range(len(NAMES)):
        model.keys(level).copy_(on_grid(torch.randn(SMALL[level], 8, generator=generator) * 0.3))
        model.values(level).copy_(torch.randn(SMALL[level], D, generator=generator) * 0.1)
    card = {"encoders": {"image_encoder": "sha256:1"}}
    save_weights(model, tmp_path / "left" / "semantic_id.safetensors", card)
    source = open_tokenizer(str(tmp_path / "left"))
    assert source.metadata["encoders"] == card["encoders"]
    assert source.graphs["encode"].rows == GATE_ROWS
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / WEIGHTS).write_bytes(source.files[WEIGHTS])
    again = SemanticId.from_weights(tmp_path / "again" / WEIGHTS)
    assert torch.equal(again.keys(5), model.keys(5))


def test_the_shipped_one_goes_by_its_name() -> None:
    source = open_tokenizer("semantic_id")
    assert source.metadata["sizes"] == list(SIZES)
    # Each of these batch sizes sees all of them, batch 1 too.
    planned = list(parity.trials(source.graphs["encode"]))
    assert [(sizes["batch"], batch) for sizes, batch in planned] == [
        (100_000, 1),
        (100_000, 64),
        (100_000, 1024),
        (1, 1),
    ]


def test_what_is_no_tokenizer_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SourceError, match="found no such file"):
        open_tokenizer(str(tmp_path / "absent"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.raises(SourceError, match="expected safetensors"):
        open_tokenizer(str(broken))
    books = {f"codebooks.{i}": book.clone() for i, book in enumerate(codebooks())}
    save_file(books, tmp_path / "named.safetensors")
    assert open_tokenizer(str(tmp_path / "named.safetensors")).metadata["sizes"] == list(SMALL)
    for state, said in (
        (dict(list(books.items())[:5]), "6 codebooks named codebooks.0"),
        (books | {"codebooks.6": torch.zeros(8, D)}, "6 codebooks"),
        (books | {"codebooks.3": torch.zeros(8, D + 1)}, "of one D"),
        (books | {"codebooks.3": torch.full((8, D), 9.0)}, "length below 2"),
        (books | {"codebooks.3": torch.full((8, D), torch.nan)}, "length below 2"),
    ):
        save_file(state, tmp_path / "other.safetensors")
        with pytest.raises(SourceError, match=said):
            open_tokenizer(str(tmp_path / "other.safetensors"))
    assert main(["semantic_id", str(tmp_path / "absent"), "--out", str(tmp_path / "m")]) == 2
    assert "expected a tokenizer's weights" in capsys.readouterr().err


def test_the_shipped_one_is_tried_on_as_many_as_asked(tmp_path: Path) -> None:
    argv = ["shipped", "--out", str(tmp_path), "--only", "semantic_id"]
    assert main([*argv, "--rows", "300"]) == 0
    gate = {each.output: each for each in Repository(tmp_path).open("semantic_id").manifest.parity}
    # At each batch size all of them, or one batch where that is more.
    assert gate["codes"].rows == 300 + 300 + 1024 + 1
    assert gate["codes"].flip_rate == 0
    with pytest.raises(SystemExit):
        main([*argv, "--rows", "0"])
