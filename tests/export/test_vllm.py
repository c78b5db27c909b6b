"""`python -m export vllm`: from a trained folder to what vLLM opens, or a clear no."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.random_llm import make
from export.__main__ import main
from export.repository import Repository

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("llm") / "judge")


def test_a_folder_becomes_a_bundle(source: Path, tmp_path: Path) -> None:
    assert main(["vllm", str(source), "--out", str(tmp_path), "--name", "checks"]) == 0
    bundle = Repository(tmp_path).open("checks")
    manifest = bundle.manifest
    assert (manifest.kind, set(manifest.graphs)) == ("llm", {"adapter"})
    graph = manifest.graphs["adapter"]
    assert graph.inputs[0].shape == ("batch", 384)
    assert graph.outputs[0].shape == ("batch", 8, 64)
    assert manifest.parity[0].cosine is not None
    assert manifest.parity[0].cosine > 0.99999
    labels = manifest.metadata["label_ids"]
    assert isinstance(labels, dict)
    assert labels["yes"] != labels["no"]
    # vLLM reads every *.safetensors of a folder: the adapter is there as a graph only.
    assert {name for name in manifest.files if name.endswith(".safetensors")} == {
        "model.safetensors"
    }
    same = (source / "model.safetensors").read_bytes()
    assert bundle.file("model.safetensors").read_bytes() == same


def edit(file: str, **changes: object) -> Change:
    def change(folder: Path) -> None:
        value = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(value | changes))

    return change


def remove(file: str) -> Change:
    return lambda folder: (folder / file).unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("checks.json"), "checks.json"),
        (remove("config.json"), "config.json is missing"),
        (remove("adapter.safetensors"), "adapter.safetensors"),
        (pickled, "safe_serialization"),
        (edit("config.json", architectures=["BertModel"]), "causal language model"),
        (edit("config.json", auto_map={"AutoModel": "code.Model"}), "code of its own"),
        (edit("config.json", hidden_size=128), "adapter"),
        (edit("checks.json", labels={"yes": "yes or so", "no": "no"}), "must be one token"),
        (edit("checks.json", labels={"yes": "yes", "no": "yes"}), "same token"),
        (edit("checks.json", context=100_000), "was made for"),
        (edit("checks.json", context=100), "lower the limits"),
    ],
)
def test_a_folder_that_cannot_judge_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, said: str
) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(source, folder)
    change(folder)
    assert main(["vllm", str(folder), "--out", str(tmp_path / "repo")]) != 0
    found = capsys.readouterr().err
    assert said in found
    assert "Traceback" not in found
    assert not Repository(tmp_path / "repo").names()


@pytest.mark.parametrize("also", [[], ["--quantize", "W8A8"]])
def test_a_hub_id_is_not_downloaded(
    also: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vllm", "Qwen/Qwen3-0.6B", "--out", str(tmp_path), *also]) == 2
    assert "hf download Qwen/Qwen3-0.6B --local-dir FOLDER" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
