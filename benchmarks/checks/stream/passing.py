"""Subjects through the model or through the judge, many at a time.

In: subjects, and the order in which they are checked. Out: verdicts, and where each check's came
from.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feature_store.progress import bar
from serving.checks.judge import Judge
from serving.checks.subjects import Subject
from serving.checks.understander import SOON, Understander
from serving.checks.vectors import Space, Vector
from serving.checks.verdicts import Risk
from serving.deadline import Deadline
from serving.errors import ServingError

from ...errors import InvalidRunError
from ..opened import together

CLIENTS = 16
PATIENCE_S = 600.0


@dataclass(slots=True)
class Passed:
    """verdicts: the last one of each creative. sources: how many of its checks came from where."""

    verdicts: dict[int, Risk] = field(default_factory=dict)
    sources: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


class Placed:
    """A `Space` that has placed some ads before: their pictures are not looked at again."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._placed: dict[bytes, Vector] = {}
        self._revision = ""

    def keep(self, subjects: Iterable[Subject], vectors: Iterable[Vector]) -> None:
        """Vectors (D,) of subjects."""
        self._placed |= {s.content: v for s, v in zip(subjects, vectors, strict=True)}

    async def ad(self, subject: Subject) -> tuple[Vector, str]:
        """As `Space.ad`."""
        vector = self._placed.get(subject.content)
        if vector is None or not self._revision:
            vector, self._revision = await self._space.ad(subject)
        return vector, self._revision


async def read_all(model: Understander, subjects: Sequence[Subject]) -> list[Risk]:
    """The engine's verdict of each, in order."""
    found: dict[int, Risk] = {}

    async def one(number: int) -> None:
        found[number] = await model.risk(subjects[number], SOON)

    await together(one, range(len(subjects)), CLIENTS)
    return [found[number] for number in range(len(subjects))]


async def through(judge: Judge, subjects: Mapping[int, Subject], order: NDArray[np.int_]) -> Passed:
    """Check subjects in this order. Raises InvalidRunError when one is not judged."""
    passed = Passed()
    done = 0
    with bar("checks") as progress:

        async def one(number: int) -> None:
            nonlocal done
            deadline = Deadline.after(PATIENCE_S)
            (judged,) = await judge.risk([subjects[number]], deadline, SOON)
            if isinstance(judged, ServingError) or judged.instead_of is not None:
                raise InvalidRunError(f"a check was not judged: {judged}")
            passed.verdicts[number] = judged.value
            passed.sources[number][judged.source] += 1
            done += 1
            progress(done, len(order))

        await together(one, order.tolist(), CLIENTS)
    return passed
