"""The shipped text tower: against numbers of its reference implementation, made once, kept."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export import Repository, parity, shipped
from export.__main__ import main
from export.bundle import Bundle
from export.manifest import MANIFEST_FILE, Source
from export.revision import folder_revision
from export.sources.card import read_card

TEXTS = [
    "red running shoes",
    "A long coat of dark wool, lined, with four pockets and a belt",
    "GPU",
    "Café crème à emporter — 3,50 €",
    "红色跑鞋",
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository(tmp_path_factory.mktemp("shipped"))
    assert main(["shipped", "--out", str(repository.root), "--only", "text_encoder"]) == 0
    return repository


def _embed(bundle: Bundle, texts: list[str]) -> NDArray[np.float32]:
    """What serving does with a text tower: its own tokenizer, its own graph."""
    from tokenizers import Tokenizer

    rows = Tokenizer.from_file(str(bundle.file("tokenizer.json"))).encode_batch(texts)
    feeds = {
        "input_ids": np.array([row.ids for row in rows], np.int64),
        "attention_mask": np.array([row.attention_mask for row in rows], np.int64),
    }
    found: NDArray[np.float32] = parity.open_session(bundle.path()).run(None, feeds)[0]
    return found


def _reference(texts: list[str]) -> NDArray[np.float32]:
    """Mean pooling as the model's card shows it, by transformers itself."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = shipped.text_folder()
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=128, return_tensors="pt"
    )
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).expand(hidden.size()).float()
    pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    found: NDArray[np.float32] = torch.nn.functional.normalize(pooled, p=2, dim=1).numpy()
    return found


def test_embeddings_are_those_of_the_reference_implementation(repository: Repository) -> None:
    bundle = repository.open("text_encoder")
    texts = [*TEXTS, " ".join(["shoe"] * 300)]
    np.testing.assert_allclose(_embed(bundle, texts), _reference(texts), atol=2e-6)


def test_padding_does_not_change_a_row(repository: Repository) -> None:
    bundle = repository.open("text_encoder")
    together, alone = _embed(bundle, TEXTS), np.concatenate([_embed(bundle, [t]) for t in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_what_is_there_is_not_made_again(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shipped", "--out", str(repository.root), "--only", "text_encoder"]) == 0
    assert capsys.readouterr().out == "text_encoder 1: is there\n"
    assert repository.versions("text_encoder") == ["1"]


def test_the_shipped_tokenizer_was_learned_on_the_shipped_encoders() -> None:
    card = read_card(Path(shipped.__file__).parent / "reference/weights/semantic_id.safetensors")
    towers = ("image_encoder", "text_encoder")
    assert card["encoders"] == {name: shipped.source(name).revision for name in towers}


def test_while_an_older_one_is_pinned_nothing_is_made(tmp_path: Path, make_draft: Any) -> None:
    repository = Repository(tmp_path / "repository")
    draft = make_draft(name="image_encoder")
    old = replace(draft.manifest, source=Source("tessera/image_encoder", "sha256:old"))
    new = replace(draft.manifest, source=shipped.source("image_encoder"))
    for manifest in (old, new):
        repository.publish(Bundle(draft.directory, manifest))
    repository.pin("image_encoder", "1")
    assert main(["shipped", "--out", str(repository.root), "--only", "image_encoder"]) == 0
    assert repository.versions("image_encoder") == ["1", "2"]
    assert repository.latest("image_encoder") == "1"


def test_a_bundle_of_somebody_else_stays(
    tmp_path: Path, make_draft: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(tmp_path / "repository")
    repository.publish(make_draft(name="text_encoder"))
    assert main(["shipped", "--out", str(repository.root), "--only", "text_encoder"]) == 0
    assert "made from test and stays" in capsys.readouterr().out


def test_the_manifest_says_what_serving_must_know(repository: Repository) -> None:
    manifest = repository.open("text_encoder").manifest
    tokenizer = manifest.metadata["tokenizer"]
    assert isinstance(tokenizer, dict)
    assert tokenizer == {
        "file": "tokenizer.json",
        "max_length": 128,
        "padding": "longest",
        "pad_id": 0,
        "pad_token": "[PAD]",
    }
    graph = manifest.graphs["model"]
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in graph.inputs] == [
        ("input_ids", "int64", ("batch", "sequence")),
        ("attention_mask", "int64", ("batch", "sequence")),
    ]
    assert graph.outputs[0].shape == ("batch", 384)
    assert manifest.source.revision == folder_revision(shipped.text_folder())
    assert manifest.parity[0].cosine is not None
    assert manifest.parity[0].cosine >= 0.99999


def test_the_revision_follows_what_gives_the_numbers_only(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = folder_revision(tmp_path)
    (tmp_path / "README.md").write_text("changed")
    assert folder_revision(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert folder_revision(tmp_path) != first


def test_the_manifest_on_disk_is_plain_json(repository: Repository) -> None:
    value = json.loads((repository.open("text_encoder").directory / MANIFEST_FILE).read_bytes())
    assert value["format_version"] == 1
    assert set(value["files"]) == {"model.onnx", "tokenizer.json"}
