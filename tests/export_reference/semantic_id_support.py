"""What the tests of semantic IDs share: sizes, a plan and rows that learn in seconds."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from export.semantic_id.learning import Plan
from export.semantic_id.model import SemanticId
from export.semantic_id.tuning import Tuning

SMALL = (16, 16, 32, 32, 64, 64)
PLAN = Plan(seed=3, sizes=SMALL, latent=24, held_out=0.1, tuning=Tuning(rounds=2, steps=2))

Learned = tuple[SemanticId, dict[str, object]]


def vectors(count: int, seed: int, dimension: int = 48) -> NDArray[np.float32]:
    """Unit rows around 60 topics: something that a codebook can find."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(0).normal(size=(60, dimension))
    rows = topics[rng.integers(60, size=count)] + rng.normal(size=(count, dimension)) * 0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Steps this small only wait for each other on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)
