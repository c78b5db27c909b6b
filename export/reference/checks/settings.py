"""`checks.json` of the reference model: its prompts as data, and what its answers mean.

In: scores of unseen checks with known answers. Out: the record that the exporter and serving read
(`export/checks.py`). Calibration is Platt's: p = sigmoid(scale * logit + bias), fitted by Newton's
method with a prior that pulls towards scale 1, bias 0 (Platt 1999).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from export.checks import (
    Affine,
    Calibration,
    CaptionPrompt,
    Checks,
    Encoder,
    Labels,
    Limits,
    Prompt,
    Prompts,
    Threshold,
)
from export.reference.checks.prompt import (
    AD,
    ANSWER,
    ASK,
    BLOCK,
    CAPTION,
    IMAGE,
    NO,
    PAD,
    POLICY_TEXT,
    QUESTIONS,
    RELEVANCE,
    SOFT_TOKENS,
    TEXT,
    YES,
)

CONTEXT = 512
_BODY = f"{AD} {{title}}{TEXT} {{text}}{{image}}"
_ALLOWED = 0.002  # harmless ads that may be blocked, at most
_REVIEWED = 0.02  # and reviewed
_PRIOR = 1.0

Values = NDArray[np.float64]


def settings(
    policy_tokens: int,
    revision: str,
    calibration: Mapping[str, Affine],
    thresholds: Mapping[str, Threshold],
) -> Checks:
    """The whole record.

    Args:
        policy_tokens: length of the policy before padding.
        revision: of the image encoder that the adapter was trained on.
        calibration: by label, and for "relevance".
    """
    prefix = POLICY_TEXT + PAD * (-policy_tokens % BLOCK)
    risk = {
        label: Prompt(prefix, _BODY, f"{ASK} {words}{ANSWER}") for label, words in QUESTIONS.items()
    }
    relevance = Prompt(prefix, f"{_BODY}{ASK} {RELEVANCE}", ANSWER)
    caption = CaptionPrompt(prefix, _BODY, f"{ASK} {CAPTION}{ANSWER}", 32)
    return Checks(
        labels=Labels(YES, NO),
        prompts=Prompts(relevance, risk, caption),
        limits=Limits(query_tokens=32, title_tokens=48, text_tokens=160),
        context=CONTEXT,
        calibration=Calibration(
            calibration["relevance"], {label: calibration[label] for label in QUESTIONS}
        ),
        thresholds={label: thresholds[label] for label in QUESTIONS},
        enforce=False,  # a stand-in marks ads; it takes none down
        soft_tokens=SOFT_TOKENS,
        image_mark=IMAGE,
        block_size=BLOCK,
        encoder=Encoder("image_encoder", revision),
    )


def fit(logits: Values, answers: NDArray[np.bool_]) -> Affine:
    """Scale and bias that make sigmoid(scale * logit + bias) a probability."""
    x = np.stack([logits, np.ones_like(logits)], axis=1)
    # Platt's targets: no probability is claimed to be exactly 0 or 1.
    yes, no = answers.sum(), (~answers).sum()
    target = np.where(answers, (yes + 1) / (yes + 2), 1 / (no + 2))
    prior = np.array([1.0, 0.0])
    theta = prior.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ theta, -30, 30)))
        gradient = x.T @ (p - target) + _PRIOR * (theta - prior)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + _PRIOR * np.eye(2)
        theta = theta - np.clip(np.linalg.solve(curvature, gradient), -1, 1)
    return Affine(round(float(max(theta[0], 0.05)), 5), round(float(theta[1]), 5))


def threshold(affine: Affine, harmless: Values) -> Threshold:
    """Where to review and to block, from the logits of ads that break nothing."""
    p = 1 / (1 + np.exp(-np.clip(affine.scale * harmless + affine.bias, -30, 30)))
    block = max(0.9, float(np.quantile(p, 1 - _ALLOWED)) + 0.01)
    review = max(0.5, float(np.quantile(p, 1 - _REVIEWED)))
    block = min(round(block, 4), 0.9999)
    return Threshold(review=min(round(review, 4), block), block=block)
