"""docs/bring_your_own_model.md: every block runs, in order, in one folder."""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks.random_llm import make
from export import Repository
from export.__main__ import main
from tests.serving.inference.front import Front, serve

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "bring_your_own_model.md").read_text()
BLOCKS = re.findall(r"^```(sh|python|json)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


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


def _qwen(folder: Path) -> None:
    """A small Qwen3 with random weights, before anybody has said how it is asked."""
    make(folder)
    (folder / "checks.json").unlink()
    (folder / "adapter.safetensors").unlink()


@contextmanager
def _models(repository: Repository) -> Iterator[str]:
    """The tensor models over HTTP, in a thread."""
    started: Future[Front] = Future()
    stop = Event()
    thread = Thread(target=lambda: asyncio.run(serve(repository, started, stop)), daemon=True)
    thread.start()
    try:
        yield started.result(timeout=60).http
    finally:
        stop.set()
        thread.join(timeout=30)


@contextmanager
def _judge(models: Path, redis_url: str) -> Iterator[str]:
    """The checks application on vLLM's engine, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.export.judge_server"]
    profile = tomllib.loads((ROOT / "serving" / "development.toml").read_text())
    settings = profile["deployments"]["llm"]["environment"]
    with subprocess.Popen(
        [*command, str(models), redis_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **settings},
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        port = next((line for line in process.stdout if line.startswith("port ")), None)
        assert port is not None, "the judge ended before it answered"
        address = f"127.0.0.1:{port.split()[1]}"
        try:
            deadline = time.monotonic() + 60
            while httpx.get(f"http://{address}/v1/checks/readyz").status_code != 200:
                assert time.monotonic() < deadline, "the judge did not become ready"
                time.sleep(0.1)
            yield address
        finally:
            process.stdin.close()
            process.wait(timeout=60)


def test_every_block_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valkey_url: str
) -> None:
    _clip(tmp_path / "clip")
    _qwen(tmp_path / "qwen")
    Image.new("RGB", (60, 40), (200, 30, 30)).save(tmp_path / "shoe.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    languages = [language for language, _ in BLOCKS]
    assert languages == ["sh", "sh", "python", "sh", "json", "sh", "python", "python", "sh"]
    asked = []
    for language, block in BLOCKS:
        if language == "json":
            (tmp_path / "qwen" / "checks.json").write_text(block)
        elif "localhost:8000" in block:
            is_check = "/v1/checks" in block
            served = _judge(tmp_path / "models", valkey_url) if is_check else _tensors(tmp_path)
            with served as address:
                exec(block.replace("localhost:8000", address), {})  # its own asserts speak
            asked.append(block)
        elif language == "python":
            (tmp_path / "my_model.py").write_text(block)
        else:
            _run_lines(block)
    assert len(asked) == 2
    repository = Repository(tmp_path / "models")
    assert repository.names() == ["checks", "image_encoder", "ranker", "text_encoder"]
    assert repository.open("image_encoder").manifest.precision == "fp32"
    assert repository.latest("ranker") == "2"


def _tensors(root: Path) -> AbstractContextManager[str]:
    """The models of the walk that are served as tensors; the judge is not one of them."""
    shutil.copytree(root / "models" / "image_encoder", root / "tensors" / "image_encoder")
    return _models(Repository(root / "tensors"))


def _run_lines(block: str) -> None:
    for line in block.splitlines():
        # In this process: a new one would load torch again for every line.
        program, arguments = line.split(" -m export ")
        assert program == "python"
        assert main(shlex.split(arguments)) == 0, line
