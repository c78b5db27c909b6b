"""Model folders of real architectures with random weights, against transformers itself."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from export import Repository, parity
from export.__main__ import main
from export.errors import SourceError
from export.sources.families import open_source

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
TOWER |= {"num_attention_heads": 2}
TEXT: dict[str, Any] = TOWER | {"vocab_size": 99, "max_position_embeddings": 16}
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
IMAGE: dict[str, Any] = TOWER | {"image_size": 32, "patch_size": 16}
LABELS = {0: "shoe", 1: "dress", 2: "hat"}
MEAN, STD = [0.48, 0.45, 0.40], [0.26, 0.26, 0.27]
FAMILIES: Mapping[str, Any] = {
    "clip": lambda: transformers.CLIPModel(
        transformers.CLIPConfig(text_config=TEXT | SPECIAL, vision_config=IMAGE, projection_dim=16)
    ),
    "siglip": lambda: transformers.SiglipModel(
        transformers.SiglipConfig(
            text_config=TEXT | SPECIAL | {"projection_size": 32}, vision_config=IMAGE
        )
    ),
    "chinese_clip": lambda: transformers.ChineseCLIPModel(
        transformers.ChineseCLIPConfig(text_config=TEXT, vision_config=IMAGE, projection_dim=16)
    ),
    "siglip2": lambda: transformers.Siglip2Model(
        transformers.Siglip2Config(
            text_config=TEXT | SPECIAL | {"projection_size": 32},
            vision_config=TOWER | {"patch_size": 16, "num_patches": 9},
        )
    ),
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**IMAGE)),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**IMAGE)),
    "vit-head": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**IMAGE, num_labels=3, id2label=LABELS)
    ),
    "dinov2-head": lambda: transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(**IMAGE, num_labels=3, id2label=LABELS)
    ),
    "xlm-roberta": lambda: transformers.XLMRobertaModel(
        transformers.XLMRobertaConfig(**TEXT | {"max_position_embeddings": 18})
    ),
    "distilbert": lambda: transformers.DistilBertModel(
        transformers.DistilBertConfig(
            vocab_size=99, max_position_embeddings=16, dim=32, n_layers=2, n_heads=2, hidden_dim=64
        )
    ),
    "roberta": lambda: transformers.RobertaModel(
        transformers.RobertaConfig(**TEXT | {"max_position_embeddings": 18})
    ),
}


def _folder(family: str, root: Path) -> tuple[Path, Any]:
    """A model folder as `save_pretrained` leaves it, with tokenizer and preprocessing."""
    torch.manual_seed(0)
    folder = root / family
    model = FAMILIES[family]().eval()
    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(95))]
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    settings = {"image_mean": MEAN, "image_std": STD, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder, model


@pytest.fixture(autouse=True)
def quiet_transformers() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _export(folder: Path, kind: str, root: Path) -> Any:
    command = ["onnx", str(folder), "--out", str(root / "repo"), "--name", kind]
    assert main(command) == 0
    return Repository(root / "repo").open(kind)


def _unit(rows: torch.Tensor) -> Any:
    return torch.nn.functional.normalize(rows, dim=-1).numpy()


@pytest.mark.parametrize("family", ["clip", "siglip", "vit", "dinov2"])
def test_image_towers(family: str, tmp_path: Path) -> None:
    folder, model = _folder(family, tmp_path)
    bundle = _export(folder, "image_encoder", tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    (found,) = parity.open_session(bundle.path()).run(None, {"pixels": pixels})
    values = (torch.from_numpy(pixels) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    values = values.permute(0, 3, 1, 2)
    with torch.inference_mode():
        if family in ("clip", "siglip"):
            expected = model.get_image_features(values).pooler_output
        else:
            expected = model(values).last_hidden_state[:, 0]
    np.testing.assert_allclose(found, _unit(expected), atol=2e-5)
    assert bundle.manifest.exporter["model.attention"] >= 2  # one node a layer
    assert bundle.manifest.metadata["resize"].startswith("RGB, stretch to 32x32")


@pytest.mark.parametrize("family", ["vit-head", "dinov2-head"])
def test_classification_heads(family: str, tmp_path: Path) -> None:
    folder, model = _folder(family, tmp_path)
    bundle = _export(folder, "image_encoder", tmp_path)
    assert bundle.manifest.metadata["classes"] == ["shoe", "dress", "hat"]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    session = parity.open_session(bundle.path())
    features, logits = session.run(["image_features", "class_logits"], {"pixels": pixels})
    values = (torch.from_numpy(pixels) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    values = values.permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = model(values).logits
        hidden = model.base_model(values).last_hidden_state[:, 0]
    np.testing.assert_allclose(logits, expected.numpy(), atol=2e-5)
    np.testing.assert_allclose(features, _unit(hidden), atol=2e-5)


@pytest.mark.parametrize(
    "family",
    ["clip", "siglip", "siglip2", "chinese_clip", "roberta", "xlm-roberta", "distilbert"],
)
def test_text_towers(family: str, tmp_path: Path) -> None:
    folder, model = _folder(family, tmp_path)
    bundle = _export(folder, "text_encoder", tmp_path)
    tokenizer = Tokenizer.from_file(str(bundle.file("tokenizer.json")))
    texts = ["w1 w2 w3", "w4", " ".join(["w5"] * 40)]
    rows = tokenizer.encode_batch(texts)
    assert len(rows[2].ids) == 16
    ids = np.array([row.ids for row in rows], np.int64)
    mask = np.array([row.attention_mask for row in rows], np.int64)
    feeds = {"input_ids": ids, "attention_mask": mask}
    session = parity.open_session(bundle.path())
    (found,) = session.run(None, feeds)
    expected = []
    for row, real in zip(ids, mask.sum(1), strict=True):
        # One text at a time, without padding: what each family's own documentation does.
        tokens = torch.from_numpy(row[None, :real])
        with torch.inference_mode():
            if family.startswith("siglip"):
                full = torch.zeros((1, 16), dtype=torch.int64)
                full[:, :real] = tokens
                expected.append(model.get_text_features(full).pooler_output)
            elif family.endswith("bert") or family.endswith("roberta"):
                expected.append(model(tokens).last_hidden_state.mean(1))
            else:
                expected.append(model.get_text_features(tokens).pooler_output)
    np.testing.assert_allclose(found, _unit(torch.cat(expected)), atol=2e-5)
    assert bundle.manifest.exporter["model.attention"] == 2
    for batch, sequence in ((1, 1), (1, 16), (5, 9), (40, 3)):
        shape = (batch, sequence)
        feeds = {"input_ids": np.full(shape, 7), "attention_mask": np.ones(shape, np.int64)}
        assert session.run(None, feeds)[0].shape[0] == batch


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_precisions_pass_their_bar(precision: str, tmp_path: Path) -> None:
    folder, _ = _folder("vit", tmp_path)
    command = ["onnx", str(folder), "--out", str(tmp_path / "repo"), "--name", "image_encoder"]
    assert main([*command, "--precision", precision]) == 0
    bundle = Repository(tmp_path / "repo").open("image_encoder")
    assert bundle.manifest.precision == precision
    assert bundle.manifest.graphs["model"].outputs[0].dtype == "float32"
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    (found,) = parity.open_session(bundle.path()).run(None, {"pixels": pixels})
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)


def test_a_dry_run_publishes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = _folder("vit", tmp_path)
    command = ["onnx", str(folder), "--out", str(tmp_path / "repo"), "--name", "image_encoder"]
    assert main([*command, "--dry-run"]) == 0
    assert "dry run: nothing was published" in capsys.readouterr().out
    assert not (tmp_path / "repo").exists()


def test_siglip2_takes_squares(tmp_path: Path) -> None:
    folder, model = _folder("siglip2", tmp_path)
    settings = {"image_mean": MEAN, "image_std": STD, "max_num_patches": 5}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    bundle = _export(folder, "image_encoder", tmp_path)
    assert bundle.manifest.exporter["model.attention"] >= 2
    assert bundle.manifest.graphs["model"].inputs[0].shape == ("batch", 32, 32, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    (found,) = parity.open_session(bundle.path()).run(None, {"pixels": pixels})
    values = (torch.from_numpy(pixels) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    # transformers' own, of one picture (C, H, W).
    cut = [convert_image_to_patches(picture.permute(2, 0, 1).numpy(), 16) for picture in values]
    patches = torch.from_numpy(np.stack(cut))
    with torch.inference_mode():
        expected = model.get_image_features(
            pixel_values=patches,
            pixel_attention_mask=torch.ones(3, 4, dtype=torch.int64),
            spatial_shapes=torch.tensor([[2, 2]] * 3),
        ).pooler_output
    np.testing.assert_allclose(found, _unit(expected), atol=2e-5)


def test_what_cannot_be_a_source_is_refused(tmp_path: Path) -> None:
    folder, _ = _folder("clip", tmp_path)
    with pytest.raises(SourceError, match="two towers"):
        open_source(str(folder), None)
    with pytest.raises(SourceError, match="hf download openai"):
        open_source("openai/clip-vit-base-patch32", None)
    with pytest.raises(SourceError, match="no such folder"):
        open_source(str(tmp_path / "nothing"), None)
    pickle = tmp_path / "model.bin"
    pickle.write_bytes(b"\x80\x04")
    with pytest.raises(SourceError, match="run code"):
        open_source(str(pickle), None)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match="can run code"):
        open_source(str(folder), "image_encoder")
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(SourceError, match="family 'whisper'"):
        open_source(str(folder), None)
    with pytest.raises(SourceError, match="cannot be imported"):
        open_source("export.nothing:make", None)
    with pytest.raises(SourceError, match="expected a ModelSource"):
        open_source("platform:node", None)
