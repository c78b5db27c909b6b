"""LoRA adapters of a judge: merged, listed beside it, or refused."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from benchmarks.random_llm import make
from export.__main__ import main
from export.repository import Repository
from export.revision import folder_revision

RANK, ALPHA = 4, 16
TARGETS = ("self_attn.q_proj", "mlp.down_proj")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("llm") / "judge")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """As peft saves one."""
    folder = tmp_path / "gambling"
    folder.mkdir()
    generator = torch.Generator().manual_seed(3)
    weights = load_file(base / "model.safetensors")
    tensors = {}
    for layer in range(2):
        for target in TARGETS:
            name = f"model.layers.{layer}.{target}"
            rows, columns = weights[f"{name}.weight"].shape
            prefix = f"base_model.model.{name}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator) / 8
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator) / 8
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    config |= {"target_modules": ["q_proj", "down_proj"], "use_dora": False}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _logits(folder: Path, side: dict[str, Any] | None = None, scale: float = 0.0) -> torch.Tensor:
    """In float64; `side` adds s B A x to what each layer gives, as an adapter does at run time."""
    transformers.utils.logging.disable_progress_bar()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    model = loaded.double().eval()
    for name, module in model.named_modules():
        down = (side or {}).get(f"base_model.model.{name}.lora_A.weight")
        if down is not None:
            up = (side or {})[f"base_model.model.{name}.lora_B.weight"]

            def add(_: Any, given: Any, out: Any, down: Any = down, up: Any = up) -> Any:
                return out + scale * (given[0] @ down.double().T) @ up.double().T

            module.register_forward_hook(add)
    with torch.inference_mode():
        return model(torch.arange(3, 23)[None]).logits


@pytest.mark.parametrize("is_rank_stabilised", [False, True])
def test_a_merged_adapter_is_in_the_weights(
    base: Path, adapter: Path, tmp_path: Path, is_rank_stabilised: bool
) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["use_rslora"] = is_rank_stabilised
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    folder = tmp_path / "float32"  # so that rounding does not hide what is added
    shutil.copytree(base, folder)
    weights = {name: value.float() for name, value in load_file(base / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"dtype": "float32"}))
    command = ["vllm", str(folder), "--out", str(tmp_path / "repo"), "--merge", str(adapter)]
    assert main(command) == 0
    bundle = Repository(tmp_path / "repo").open("checks")
    scale = ALPHA / (math.sqrt(RANK) if is_rank_stabilised else RANK)
    tensors = load_file(adapter / "adapter_model.safetensors")
    expected = _logits(folder, tensors, scale)
    torch.testing.assert_close(_logits(bundle.directory), expected, atol=1e-5, rtol=1e-5)
    assert (expected - _logits(folder)).abs().max() > 0.1
    merged = bundle.manifest.metadata["merged"]
    assert merged == {"name": "gambling", "base": folder_revision(folder, ["model.safetensors"])}
    assert bundle.manifest.source.revision != folder_revision(folder)


def test_adapters_lie_beside_the_weights(base: Path, adapter: Path, tmp_path: Path) -> None:
    repo = str(tmp_path / "repo")
    assert main(["vllm", str(base), "--out", repo, "--lora", str(adapter)]) == 0
    bundle = Repository(repo).open("checks")
    (listed,) = bundle.manifest.metadata["lora"]  # type: ignore[misc]
    assert listed["name"] == "gambling"
    assert listed["rank"] == RANK
    assert listed["base"] == folder_revision(base, ["model.safetensors"])
    file = bundle.file(f"{listed['path']}/adapter_model.safetensors")
    assert file.read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()
    same = (base / "model.safetensors").read_bytes()
    assert bundle.file("model.safetensors").read_bytes() == same


def test_the_calibration_table_is_in_the_manifest(base: Path, tmp_path: Path) -> None:
    assert main(["vllm", str(base), "--out", str(tmp_path)]) == 0
    table = Repository(tmp_path).open("checks").manifest.metadata["calibration"]
    checks = json.loads((base / "checks.json").read_text())
    assert isinstance(table, dict)
    assert table["relevance"] == checks["calibration"]["relevance"]
    name = next(iter(checks["prompts"]["risk"]))
    row = checks["calibration"]["risk"][name] | checks["thresholds"][name]
    assert table[f"risk.{name}"] == row


def _edit(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return apply


def _narrow(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in tensors if name.endswith("q_proj.lora_A.weight"))
    tensors[name] = tensors[name][:, :-1].contiguous()


def _pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_edit(peft_type="IA3"), "expected peft_type LORA"),
        (_edit(use_dora=True), "merge it with peft"),
        (_edit(modules_to_save=["lm_head"]), "merge it with peft"),
        (_edit(r=8), "do not fit rank 8"),
        (_edit(r="many"), "no LoRA adapter"),
        (_weights(_narrow), "an adapter of another model"),
        (_weights(lambda tensors: tensors.update(extra=torch.ones(1))), "more than pairs"),
        (_pickled, "pickles are refused"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    base: Path,
    adapter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    said: str,
) -> None:
    change(adapter)
    repo = tmp_path / "repo"
    for option in ("--merge", "--lora"):
        assert main(["vllm", str(base), "--out", str(repo), option, str(adapter)]) == 2
        found = capsys.readouterr().err
        assert said in found
        assert "Traceback" not in found
    assert Repository(repo).names() == []


def test_choices_that_exclude_each_other(
    base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["vllm", str(base), "--out", str(tmp_path / "repo")]
    assert main([*command, "--merge", str(adapter), "--lora", str(adapter)]) == 2
    assert "choose one" in capsys.readouterr().err
    assert main([*command, "--quantize", "W8A16"]) == 2
    assert "pip install llmcompressor" in capsys.readouterr().err
    assert main([*command, "--quantize", "INT1"]) == 2
    assert "expected one of" in capsys.readouterr().err
