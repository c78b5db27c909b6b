"""What a policy's prototypes look at, where a line through an ad's vector tells too little.

In: an ad's unit vector and its words. Out: the hidden layer of a small network over both, which was
taught by the model's own verdicts (`serving.checks.onboarding.distilling`). An ad with a word that
the network has not seen while it learned is not for it to judge: a word nobody knows may be a risk
that is spelt in another way.
"""

import base64
from collections.abc import Collection
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

PRESENT = 0.3  # what a word that is there counts for, beside a unit vector

Vector = NDArray[np.float32]


class Network(BaseModel):
    """relu(x @ weights + bias), x: the vector (D,), then PRESENT for each known word that is there.

    words: CRC-32 (uint32) of the W known ones, ascending. weights: float16 (D + W, H). bias:
    float16 (H,). All little-endian, in base64.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: str
    weights: str
    bias: str

    @model_validator(mode="after")
    def _fits(self) -> "Network":
        weights, bias = _floats(self.weights), _floats(self.bias)
        if (
            not len(bias)
            or len(weights) % len(bias)
            or len(weights) // len(bias) <= len(self.known)
        ):
            raise ValueError("expected weights (D + W, H) for W words and a bias (H,)")
        if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ValueError("expected finite weights")
        return self

    @classmethod
    def of(cls, words: NDArray[np.uint32], weights: Vector, bias: Vector) -> "Network":
        """From arrays (W,), (D + W, H) and (H,)."""
        return cls(
            words=base64.b64encode(words.astype("<u4").tobytes()).decode(),
            weights=base64.b64encode(weights.astype("<f2").tobytes()).decode(),
            bias=base64.b64encode(bias.astype("<f2").tobytes()).decode(),
        )

    @property
    def known(self) -> dict[int, int]:
        """Row of each known word, counted from the first of them."""
        return _known(self.words)

    @property
    def width(self) -> int:
        """H."""
        return len(_floats(self.bias))

    def knows(self, words: Collection[int]) -> bool:
        """Whether it has seen all of these words."""
        return all(word in self.known for word in words)

    def __call__(self, vector: Vector, words: Collection[int]) -> Vector:
        """The hidden layer (H,) of an ad: unit vector (D,), checksums of its words."""
        bias, known = _floats(self.bias), self.known
        weights = _floats(self.weights).reshape(-1, len(bias))
        rows = [len(vector) + known[word] for word in words if word in known]
        hidden = vector @ weights[: len(vector)] + PRESENT * weights[rows].sum(0) + bias
        found: Vector = np.maximum(hidden, 0).astype(np.float32)
        return found


@lru_cache(maxsize=64)
def _floats(data: str) -> Vector:
    return np.frombuffer(_bytes(data), "<f2").astype(np.float32)


@lru_cache(maxsize=64)
def _known(data: str) -> dict[int, int]:
    words = np.frombuffer(_bytes(data), "<u4")
    return {int(word): row for row, word in enumerate(words)}


def _bytes(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise ValueError(f"expected base64: {error}") from error
