"""Language models that judge ads: a Hugging Face folder with a `checks.json` and an adapter.

In: the folder that training leaves, or any Qwen2.5- or Qwen3-type one to which a `checks.json` was
added. Out: what vLLM opens (weights, configuration, tokenizer as they are), the prompts, and the
adapter as a graph. Weights are copied, never converted: the model in a bundle is the trained one.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from export import checks as checks_file
from export.checks import CHECKS_FILE, Checks
from export.errors import SourceError
from export.manifest import Source, TensorSpec
from export.prompts import Renderer, Words
from export.revision import folder_revision
from export.sources.huggingface import read_json
from export.sources.source import GraphSource, ModelSource

KIND = "llm"
ADAPTER = "adapter.safetensors"
DIM = 384
_REQUIRED = ("config.json", "tokenizer.json", "tokenizer_config.json")
_OPTIONAL = ("generation_config.json", "model.safetensors.index.json")
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_BATCHES = (1, 3, 8, 32)


def read_llm(
    folder: Path, name: str | None = None, merge: Path | None = None, loras: Sequence[Path] = ()
) -> ModelSource:
    """Read and check a folder.

    Args:
        name: of the source, by default the folder's.
        merge: a LoRA adapter that is added to the weights.
        loras: adapters that go into the bundle beside the weights.

    Raises:
        SourceError: a file is missing, is no causal language model, a label is not one token, or
            an adapter is of another model.
    """
    config = _config(folder)
    checks = checks_file.read(folder)
    renderer = Renderer(folder / "tokenizer.json", checks)
    hidden, vocabulary = int(config["hidden_size"]), int(config["vocab_size"])
    metadata = {
        "label_ids": _label_ids(renderer, checks, vocabulary),
        "hidden": hidden,
        "vocabulary": vocabulary,
        "context": _context(config, checks),
        "block_size": checks.block_size,
        "soft_tokens": checks.soft_tokens,
        "encoder": None
        if checks.encoder is None
        else {"name": checks.encoder.name, "revision": checks.encoder.revision},
        "longest_prompt": _longest(renderer, checks, folder),
        "card": _card(folder),
    }
    # vLLM takes every *.safetensors of a folder for weights: the adapter goes in as a graph only.
    weights = [path for path in sorted(folder.iterdir()) if _WEIGHTS.fullmatch(path.name)]
    others = [folder / file for file in (*_REQUIRED, *_OPTIONAL, CHECKS_FILE)]
    files = {path.name: path for path in (*weights, *others) if path.is_file()}
    source = ModelSource(
        kind=KIND,
        source=Source(name or folder.name, folder_revision(folder)),
        graphs=_graphs(folder, checks, hidden),
        copied=files,
        metadata=metadata | {"calibration": calibration_table(checks)},
    )
    return _adapted(source, weights, merge, loras)


def calibration_table(checks: Checks) -> dict[str, dict[str, float]]:
    """For each question how its margin becomes a probability, and what follows from it."""
    table = {"relevance": asdict(checks.calibration.relevance)}
    for name, affine in checks.calibration.risk.items():
        table[f"risk.{name}"] = asdict(affine) | asdict(checks.thresholds[name])
    return table


def _adapted(
    source: ModelSource, weights: list[Path], merge: Path | None, loras: Sequence[Path]
) -> ModelSource:
    if merge is None and not loras:
        return source
    from export.sources import lora

    if merge is not None and loras:
        raise SourceError(
            "--merge and --lora: adapters are of the weights as they were; choose one"
        )
    folder = weights[0].parent
    base = folder_revision(folder, [path.name for path in weights])
    if merge is not None:
        one = lora.read_lora(merge)
        lora.check_targets(one, weights)
        both = f"{folder_revision(folder)} {folder_revision(merge, [lora.CONFIG, lora.WEIGHTS])}"
        revision = f"sha256:{hashlib.sha256(both.encode()).hexdigest()}"
        return replace(
            source,
            source=replace(source.source, revision=revision),
            copied={file: path for file, path in source.copied.items() if path not in weights},
            written={path.name: partial(lora.write_merged, one, path) for path in weights},
            metadata=dict(source.metadata) | {"merged": {"name": merge.name, "base": base}},
        )
    read = [lora.read_lora(path) for path in loras]
    copied = dict(source.copied)
    for one in read:
        lora.check_targets(one, weights)
        for file in (lora.CONFIG, lora.WEIGHTS):
            copied[f"lora/{one.folder.name}/{file}"] = one.folder / file
    return replace(
        source, copied=copied, metadata=dict(source.metadata) | {"lora": lora.listing(read, base)}
    )


def _config(folder: Path) -> dict[str, Any]:
    if missing := [file for file in _REQUIRED if not (folder / file).is_file()]:
        raise SourceError(f"{folder}: expected a Hugging Face folder, {missing[0]} is missing")
    if not any(_WEIGHTS.fullmatch(path.name) for path in folder.iterdir()):
        raise SourceError(
            f"{folder} has no model.safetensors. Pickled weights can run code as they are read and "
            "are refused: save the model again with safe_serialization=True"
        )
    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    if not any(str(name).endswith("ForCausalLM") for name in architectures):
        raise SourceError(
            f"{folder}: expected a causal language model (Qwen2ForCausalLM, Qwen3ForCausalLM), "
            f"found {architectures}"
        )
    if config.get("auto_map"):
        raise SourceError(f"{folder}: a model that brings code of its own is refused (auto_map)")
    return config


def _label_ids(renderer: Renderer, checks: Checks, vocabulary: int) -> dict[str, int]:
    """The labels' token ids. Raises SourceError unless each is one token of its own."""
    found: dict[str, int] = {}
    for name, label in (("yes", checks.labels.yes), ("no", checks.labels.no)):
        ids = renderer.single(label)
        if len(ids) != 1 or renderer.decode(ids) != label.strip() or ids[0] >= vocabulary:
            raise SourceError(
                f"labels.{name}: {label!r} must be one token of this tokenizer, found {ids}: the "
                "answer is read from the first token; name a label that is one token"
            )
        found[name] = ids[0]
    if found["yes"] == found["no"]:
        raise SourceError("labels: yes and no are the same token")
    return found


def _context(config: Mapping[str, Any], checks: Checks) -> int:
    most = int(config.get("max_position_embeddings") or checks.context)
    if checks.context > most:
        raise SourceError(f"context: {checks.context} tokens, the model was made for {most}")
    return checks.context


def _longest(renderer: Renderer, checks: Checks, folder: Path) -> int:
    """Tokens of the longest prompt there can be; SourceError when it does not fit."""
    # A letter a word is at least a token each, so that every field is at its limit.
    full = " ".join("q" * 20_000)
    words = Words(full, full, full, image=True)
    asked = [checks.prompts.relevance, *checks.prompts.risk.values()]
    longest = 1 + max(len(renderer.render(prompt, words).ids) for prompt in asked)
    if (caption := checks.prompts.caption) is not None:
        rendered = renderer.render(caption.prompt, words)
        longest = max(longest, len(rendered.ids) + caption.max_tokens)
    if longest > checks.context:
        raise SourceError(
            f"{folder / CHECKS_FILE}: with every field at its limit a prompt and its answer have "
            f"{longest} tokens, context is {checks.context}: lower the limits or raise context"
        )
    return longest


def _card(folder: Path) -> dict[str, object]:
    scores = folder / "checks.scores.json"
    return read_json(scores) if scores.is_file() else {}


def _graphs(folder: Path, checks: Checks, hidden: int) -> dict[str, GraphSource]:
    file = folder / ADAPTER
    if not file.is_file():
        if checks.soft_tokens:
            raise SourceError(
                f"{folder}: soft_tokens is {checks.soft_tokens}, but there is no {ADAPTER}; "
                "set it to 0 for a judge of words alone"
            )
        return {}
    from export.reference.checks.model import Adapter
    from export.reference.errors import ReferenceModelError
    from export.reference.weights import load_weights

    module = Adapter(hidden)
    try:
        load_weights(module, file, "an adapter")
    except ReferenceModelError as error:
        raise SourceError(str(error)) from error
    module.eval()
    shape: tuple[int | str, ...] = ("batch", checks.soft_tokens, hidden)
    with torch.inference_mode():
        found = tuple(module(torch.zeros(1, DIM)).shape)
    if found != (1, checks.soft_tokens, hidden):
        raise SourceError(
            f"{file} gives {found[1:]} an image; checks.json and config.json say "
            f"({checks.soft_tokens}, {hidden})"
        )

    def sample(sizes: Mapping[str, int], generator: torch.Generator) -> tuple[torch.Tensor]:
        rows = torch.randn((sizes["batch"], DIM), generator=generator)
        return (torch.nn.functional.normalize(rows, dim=1),)

    return {
        "adapter": GraphSource(
            module=module,
            inputs=(TensorSpec("features", "float32", ("batch", DIM)),),
            outputs=(TensorSpec("soft_tokens", "float32", shape),),
            sample=sample,
            axes={"batch": _BATCHES},
        )
    }
