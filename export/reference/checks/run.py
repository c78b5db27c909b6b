"""Trains, calibrates, judges and writes the reference language model and its adapter.

Out: a Hugging Face folder (`config.json`, `model.safetensors`, `tokenizer.json`) with
`adapter.safetensors`, the prompts in `checks.json` and the card `checks.scores.json` beside them;
`python -m export vllm` makes a bundle of it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export import checks as checks_file
from export.checks import CHECKS_FILE, Affine, Checks, Threshold
from export.reference.checks.examples import Check, risk_checks, text_examples
from export.reference.checks.judging import balanced, scores, summary
from export.reference.checks.model import Adapter
from export.reference.checks.packing import Packer
from export.reference.checks.pictures import drawn, photographed
from export.reference.checks.prompt import END, PAD, POLICY_TEXT, QUESTIONS
from export.reference.checks.settings import fit, settings, threshold
from export.reference.checks.training import Plan, Seen, train_adapter, train_language_model
from export.reference.image_encoder import ImageEncoder
from export.reference.weights import SHIPPED, save_weights
from export.revision import file_revision

CARD_FILE = "checks.scores.json"
SHIPPED_CHECKS = SHIPPED / "checks"
_DRAWN = 8000
_JUDGED = 1500
_OTHER_SEED = 1_000_003  # scores are of ads that no training drew
_CALIBRATION_SEED = 2_000_003  # and calibration of yet others


def train_checks(
    photos: Path | None,
    judged: Path | None,
    plan: Plan,
    out: Path,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains everything into the folder `out`. Returns: the card.

    Args:
        photos: class folders that the adapter learns from, beside drawn creatives.
        judged: class folders that only score it.
    """
    model, packer = train_language_model(plan, report)
    save_language_model(model, packer, out)
    encoder = ImageEncoder.from_weights()
    sources = [drawn(encoder, _DRAWN, plan.seed, 0.5)]
    if photos:
        sources.append(photographed(encoder, photos, plan.seed))
    adapter = train_adapter(model, packer, sources, plan, report)
    return finish((model, packer, adapter), sources, judged, plan, out)


def finish(
    trained: tuple[Any, Packer, Adapter],
    sources: Sequence[Seen],
    judged: Path | None,
    plan: Plan,
    out: Path,
) -> dict[str, Any]:
    """Calibrates and judges a trained model, and writes adapter, prompts and card."""
    model, packer, adapter = trained
    encoder = ImageEncoder.from_weights()
    save_weights(adapter, out / "adapter.safetensors", {})
    (out / "adapter.json").unlink()  # one card tells of both
    calibration, thresholds = calibrate(trained, encoder, sources, plan)
    revision = file_revision(SHIPPED / "image_encoder.safetensors")
    found = settings(len(packer.encode(POLICY_TEXT)), revision, calibration, thresholds)
    write_json(out / CHECKS_FILE, asdict(found))
    card: dict[str, Any] = {
        "command": "python -m export.reference checks"
        f"{' --photos PHOTOS' if len(sources) > 1 else ''} --ads {plan.ads} "
        f"--adapter-steps {plan.adapter_steps} --seed {plan.seed} --out REPO",
        "plan": asdict(plan),
        "data": f"{plan.ads} generated ads; for the adapter {len(sources[0].examples)} drawn "
        "creatives" + (f" and {len(sources[1].examples)} photos (CC0)" if len(sources) > 1 else ""),
        "parameters": {
            "language_model": sum(p.numel() for p in model.parameters()),
            "adapter": sum(p.numel() for p in adapter.parameters()),
        },
        "text": judge_text(model, packer, found, plan.seed),
        **judge_images(trained, encoder, found, judged, plan.seed),
    }
    write_json(out / CARD_FILE, card)
    return card


def calibrate(
    trained: tuple[Any, Packer, Adapter], encoder: ImageEncoder, sources: Sequence[Seen], plan: Plan
) -> tuple[dict[str, Affine], dict[str, Threshold]]:
    """Affine maps and thresholds by label, on ads that neither training nor scores use."""
    model, packer, adapter = trained
    seed = plan.seed + _CALIBRATION_SEED
    pictured = drawn(encoder, _JUDGED, seed, 0.5)
    words = [e for e in text_examples(_JUDGED, seed) if e.ad.caption is None]
    parts = [(pictured, adapter), (Seen(words, torch.empty(0)), None)]
    asked: list[Check] = []
    logits: list[float] = []
    for seen, reader in parts:
        chosen = balanced(seen.examples, 60, seed)
        asked += [check for _, check in chosen]
        logits += scores(model, packer, chosen, seen, reader)[0].tolist()
    names, values = np.array([check.label for check in asked]), np.array(logits)
    answers = np.array([check.answer for check in asked])
    maps = {
        label: fit(values[names == label], answers[names == label])
        for label in (*QUESTIONS, "relevance")
    }
    harmless = _harmless(sources[-1] if len(sources) > 1 else pictured)
    questions = [(n, c) for n, e in enumerate(harmless.examples) for c in e.checks if not c.answer]
    found = scores(model, packer, questions, harmless, adapter)[0]
    labels = np.array([check.label for _, check in questions])
    return maps, {k: threshold(maps[k], found[labels == k]) for k in QUESTIONS}


def _harmless(seen: Seen) -> Seen:
    """Five hundred of the pictures with every risk question: photos break no policy."""
    rows = np.random.default_rng(1).permutation(len(seen.examples))[:500]
    examples = []
    for row in rows.tolist():
        example = seen.examples[row]
        held = {check.label for check in example.checks if check.answer}
        examples.append(example.asking(risk_checks(held)))
    return Seen(examples, seen.features[torch.from_numpy(rows)])


def judge_text(model: Any, packer: Packer, found: Checks, seed: int) -> dict[str, Any]:
    """Scores on unseen ads of words alone, as many checks that hold as do not."""
    ads = text_examples(3 * _JUDGED, seed + _OTHER_SEED)
    unseen = [example for example in ads if example.ad.caption is None]
    asked = balanced(unseen, 100, seed)
    logits, mass = scores(model, packer, asked, Seen(unseen, torch.empty(0)), None)
    return summary(asked, logits, mass, maps(found))


def judge_images(
    trained: tuple[Any, Packer, Adapter],
    encoder: ImageEncoder,
    found: Checks,
    judged: Path | None,
    seed: int,
) -> dict[str, Any]:
    """Scores where only the picture decides: unseen drawings, and photos."""
    model, packer, adapter = trained
    unseen = {"drawn_image_only": drawn(encoder, _JUDGED, seed + _OTHER_SEED, 1.0)}
    if judged:
        unseen["photo_relevance"] = photographed(encoder, judged, seed + _OTHER_SEED)
    results = {}
    for name, seen in unseen.items():
        asked = balanced(seen.examples, 400 if name == "photo_relevance" else 100, seed)
        logits, mass = scores(model, packer, asked, seen, adapter)
        results[name] = summary(asked, logits, mass, maps(found))
    return results


def judge_shipped(photos: Path | None, seed: int) -> dict[str, Any]:
    """The scores of the committed weights, as their card has them."""
    trained, found = load_checks(SHIPPED_CHECKS), checks_file.read(SHIPPED_CHECKS)
    encoder = ImageEncoder.from_weights()
    text = judge_text(trained[0], trained[1], found, seed)
    return {"text": text, **judge_images(trained, encoder, found, photos, seed)}


def maps(found: Checks) -> Mapping[str, Affine]:
    """The calibration by label."""
    return {**found.calibration.risk, "relevance": found.calibration.relevance}


def save_language_model(model: Any, packer: Packer, out: Path) -> None:
    """Writes the frozen model in bfloat16 and its tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    model.to(torch.float32)
    (out / "model.safetensors").chmod(0o644)
    packer.tokenizer.save(str(out / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": PAD, "eos_token": END}
    write_json(out / "tokenizer_config.json", names)


def load_checks(folder: Path) -> tuple[Any, Packer, Adapter]:
    """The model, its packer and the adapter of a folder that training wrote."""
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    packer = Packer(Tokenizer.from_file(str(folder / "tokenizer.json")))
    model.requires_grad_(False)
    return model, packer, Adapter.from_weights(folder / "adapter.safetensors")


def write_json(file: Path, value: object) -> None:
    """Writes JSON that people can read."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
