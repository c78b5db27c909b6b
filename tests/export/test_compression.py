"""`python -m export vllm --quantize`: by the real llm-compressor where it is installed."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.random_llm import Size, make
from export import Repository
from export.__main__ import main
from export.errors import SourceError
from export.sources.compression import SCHEMES, quantize

needs_compressor = pytest.mark.skipif(
    find_spec("llmcompressor") is None,
    reason="llm-compressor is installed in an environment of its own (docs/bundles.md)",
)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("llm") / "judge", Size(hidden=128, layers=1))


def test_what_cannot_be_quantized_is_refused_first(
    judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SourceError, match="expected one of"):
        quantize(judge, "INT1", tmp_path / "out")
    with pytest.raises(SourceError, match="pickled weights are refused"):
        quantize(tmp_path, "W8A8", tmp_path / "out")
    command = ["vllm", str(judge), "--out", str(tmp_path / "repo"), "--quantize", "W8A8"]
    for adapter in ("--merge", "--lora"):
        assert main([*command, adapter, str(tmp_path)]) == 2
        assert "merge it first" in capsys.readouterr().err
    assert not (tmp_path / "repo").exists()


@needs_compressor
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_quantized_judge_is_a_bundle(judge: Path, tmp_path: Path, scheme: str) -> None:
    command = ["vllm", str(judge), "--out", str(tmp_path), "--quantize", scheme]
    assert main(command) == 0
    bundle = Repository(tmp_path).open("checks")
    config = json.loads(bundle.file("config.json").read_bytes())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    small = bundle.file("model.safetensors").stat().st_size
    assert small < (judge / "model.safetensors").stat().st_size


@needs_compressor
def test_a_model_that_a_scheme_does_not_fit_is_named(tmp_path: Path) -> None:
    narrow = make(tmp_path / "narrow")  # 64 wide: no multiple of a group of 128
    with pytest.raises(SourceError, match="cannot make W4A16"):
        quantize(narrow, "W4A16", tmp_path / "out")
