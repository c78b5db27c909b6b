"""docs/bring_your_own_model.md: every block runs, in order, in one folder."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from export import Repository
from export.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "bring_your_own_model.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def _clip(folder: Path) -> None:
    """A small CLIP with random weights, saved as a training team would."""
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    tower |= {"num_attention_heads": 2}
    text = tower | {"vocab_size": 50, "max_position_embeddings": 16}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config=text, vision_config=tower | {"image_size": 32, "patch_size": 16}
    )
    transformers.utils.logging.disable_progress_bar()
    transformers.CLIPModel(config).save_pretrained(folder)
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "a", "shoe"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_center_crop": True}
    settings |= {"crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def test_every_block_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _clip(tmp_path / "clip")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert [language for language, _ in BLOCKS] == ["sh", "sh", "python", "sh", "sh"]
    for language, block in BLOCKS:
        if language == "python":
            (tmp_path / "my_model.py").write_text(block)
            continue
        for line in block.splitlines():
            # In this process: a new one would load torch again for every line.
            program, arguments = line.split(" -m export ")
            assert program == "python"
            assert main(shlex.split(arguments)) == 0, line
    repository = Repository(tmp_path / "models")
    assert repository.names() == ["image_encoder", "ranker", "text_encoder"]
    assert repository.open("image_encoder").manifest.precision == "fp32"
    assert repository.latest("ranker") == "2"
