"""What the engine is asked and answers, checked before the engine sees it.

In: token ids, and soft tokens that stand in for some of them. Out: log-probabilities of labels, or
generated ids. A wrong shape can end the engine's process, so nothing passes here unchecked.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt.

    ids: token ids; those under `soft` are placeholders. soft: float32 (n, H), prompt embeddings of
    positions soft_at..soft_at+n. priority: less is sooner.
    """

    ids: tuple[int, ...]
    soft: NDArray[np.float32] | None = None
    soft_at: int | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """Natural log-probabilities of the labels asked for, in their order.

    cached_tokens: how many of the prompt's came from the prefix cache.
    """

    logprobs: tuple[float, ...]
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What the model takes. context: tokens of prompt and answer; hidden: H; vocabulary: ids.

    block_size: tokens that the prefix cache keeps together.
    """

    context: int
    hidden: int
    vocabulary: int
    block_size: int = 32


def check(ask: Ask, shape: Shape, answer_tokens: int) -> None:
    """Raises InvalidRequestError unless the engine can take `ask`."""
    length = len(ask.ids)
    if not 1 <= length <= shape.context - answer_tokens:
        raise InvalidRequestError(
            f"expected a prompt of 1-{shape.context - answer_tokens} tokens, found {length}"
        )
    if min(ask.ids) < 0 or max(ask.ids) >= shape.vocabulary:
        raise InvalidRequestError(f"expected token ids 0-{shape.vocabulary - 1}")
    if (ask.soft is None) != (ask.soft_at is None):
        raise InvalidRequestError("soft tokens and their place go together")
    if ask.soft is None or ask.soft_at is None:
        return
    if ask.soft.dtype != np.float32 or ask.soft.ndim != 2 or ask.soft.shape[1] != shape.hidden:
        raise InvalidRequestError(
            f"expected soft tokens float32 (n, {shape.hidden}), "
            f"found {ask.soft.dtype} {ask.soft.shape}"
        )
    if not 0 <= ask.soft_at <= length - len(ask.soft) or not len(ask.soft):
        raise InvalidRequestError("expected at least one soft token, all inside of the prompt")
    if not np.isfinite(ask.soft).all():
        raise InvalidRequestError("expected finite soft tokens; found NaN or infinity")
