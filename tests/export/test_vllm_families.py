"""Folders of the families that the page names are judges: vLLM says what transformers says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from benchmarks.random_llm import make
from export import Repository
from export.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = [list(range(5, 25)), [7, 9, 11] * 30]


def qwen2(folder: Path) -> Path:
    """A Qwen2-type decoder (Qwen2.5 is one) with random weights in place of the Qwen3 one."""
    make(folder, soft_tokens=0)
    words = json.loads((folder / "config.json").read_text())["vocab_size"]
    torch.manual_seed(1)
    config = transformers.Qwen2Config(
        vocab_size=words,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=640,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
    )
    transformers.Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def expected(folder: Path, labels: list[int]) -> NDArray[np.float64]:
    """Log-probabilities of labels: (prompts, 2), by transformers in float32."""
    models: Any = transformers.AutoModelForCausalLM
    model = models.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        last = [model(torch.tensor([prompt])).logits[0, -1] for prompt in PROMPTS]
    return np.array([torch.log_softmax(row, 0)[labels].tolist() for row in last])


def test_qwen2_and_qwen3_answer_as_transformers_does(tmp_path: Path) -> None:
    sources = {"qwen2": qwen2(tmp_path / "qwen2"), "qwen3": make(tmp_path / "qwen3", soft_tokens=0)}
    for family, source in sources.items():
        out = str(tmp_path / f"{family}-models")
        assert main(["vllm", str(source), "--out", out, "--name", "checks"]) == 0
    folders = [str(tmp_path / f"{family}-models") for family in sources]
    read = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.export.label_reader", *folders],
        input=json.dumps(PROMPTS),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert read.returncode == 0, read.stderr[-3000:]
    said = json.loads(read.stdout.splitlines()[-1])
    for folder, source, found in zip(folders, sources.values(), said, strict=True):
        metadata: Any = Repository(Path(folder)).open("checks").manifest.metadata
        wanted = expected(source, list(metadata["label_ids"].values()))
        # The engine computes in bfloat16: a label's log-probability is within a tenth of a nat.
        np.testing.assert_allclose(found, wanted, atol=0.1)
        assert len({tuple(row) for row in found}) == len(PROMPTS)
