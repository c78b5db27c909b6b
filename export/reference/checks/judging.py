"""Scores of the language model: each check asked by itself, as serving asks it.

The logit of a check is log P(yes) - log P(no) of the token after the prompt; calibrated, it becomes
a probability, which is right when it stands on the answer's side of one half.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.checks import Affine
from export.reference.checks.examples import Check, Example
from export.reference.checks.model import Adapter
from export.reference.checks.packing import Packer
from export.reference.checks.training import Seen, answer_logits

_BATCH = 64
Asked = Sequence[tuple[int, Check]]  # number of the example, and what is asked of it
Values = NDArray[np.float64]


def balanced(examples: Sequence[Example], wanted: int, seed: int) -> list[tuple[int, Check]]:
    """As many checks that hold as do not, of every label: (number of the example, check).

    Args:
        wanted: at most so many of each label and answer.
    """
    found: dict[tuple[str, bool], list[tuple[int, Check]]] = defaultdict(list)
    for number, example in enumerate(examples):
        for check in example.checks:
            found[check.label, check.answer].append((number, check))
    rng = np.random.default_rng(seed)
    chosen: list[tuple[int, Check]] = []
    for label in sorted({label for label, _ in found}):
        yes, no = found[label, True], found[label, False]
        count = min(wanted, len(yes), len(no))
        for pool in (yes, no):
            chosen += [pool[i] for i in rng.permutation(len(pool))[:count]]
    return chosen


def scores(
    model: Any,
    packer: Packer,
    asked: Sequence[tuple[int, Check]],
    seen: Seen,
    adapter: Adapter | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and label mass, float64 (n,), of checks about `seen.examples`.

    Args:
        adapter: makes soft tokens of `seen.features`; None reads words alone.
    """
    logits, mass = np.empty(len(asked)), np.empty(len(asked))
    with torch.inference_mode():
        for start in range(0, len(asked), _BATCH):
            part = asked[start : start + _BATCH]
            single = [seen.examples[n].asking((c,)) for n, c in part]
            batch = packer.pack(single, soft=adapter is not None)
            soft = adapter(seen.features[[n for n, _ in part]]) if adapter else None
            share = answer_logits(model, batch, soft).softmax(1).double()
            yes, no = share[:, packer.yes].numpy(), share[:, packer.no].numpy()
            logits[start : start + len(part)] = np.log(yes.clip(1e-30) / no.clip(1e-30))
            mass[start : start + len(part)] = yes + no
    return logits, mass


def summary(
    asked: Asked, logits: Values, mass: Values, calibration: Mapping[str, Affine]
) -> dict[str, Any]:
    """Accuracy of the calibrated answers over all checks and by label, and the mean label mass."""
    maps = [calibration[check.label] for _, check in asked]
    calibrated = np.array([m.scale * x + m.bias for m, x in zip(maps, logits, strict=True)])
    right = (calibrated > 0) == np.array([check.answer for _, check in asked])
    labels = np.array([check.label for _, check in asked])
    return {
        "checks": len(asked),
        "accuracy": round(float(right.mean()), 4),
        "by_label": {
            str(name): round(float(right[labels == name].mean()), 4) for name in np.unique(labels)
        },
        "label_mass": round(float(mass.mean()), 4),
    }
