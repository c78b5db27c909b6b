"""Where queries and ads lie in the space of the encoders that serve: what routing compares.

In: queries and subjects. Out: unit vectors (D,) float32, and which encoders made them. An ad's
vector is the one that ingest stored with its content, unless other encoders serve by now.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from export import Repository
from export.errors import ExportError
from serving.checks.subjects import Subject, Subjects
from serving.deadline import Deadline
from serving.encode.pipeline import IMAGE, TEXT, Towers
from serving.errors import DeadlineExceededError, UnavailableError
from serving.image import DecodedImage, ImagePool, Target
from serving.ingest.ads import Ad

Vector = NDArray[np.float32]
REVISION_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Patience:
    """How long encoders may take, and how long they are left alone after they did not answer."""

    answer_s: float
    rest_s: float


HURRIED = Patience(1.5, 5.0)  # the model still has to be asked within a caller's 5 s
PATIENT = Patience(30.0, 0.0)  # where nothing can stand in for a vector


class Encodes(Protocol):
    """The towers, near or behind handles (`ServedEncoder`)."""

    async def target(self) -> Target:
        """What pictures are fitted to."""

    async def embed(
        self,
        images: Sequence[DecodedImage | None],
        texts: Sequence[str | None],
        deadline: Deadline | None = None,
        /,
    ) -> tuple[Vector, Towers]:
        """Fused unit vectors (n, D) of pairs, and what made them."""


class Space:
    """Vectors of one encoder at a time. Methods raise ServingError when it does not answer."""

    def __init__(
        self,
        encoder: Encodes,
        repository: Repository,
        subjects: Subjects,
        images: ImagePool,
        patience: Patience = HURRIED,
    ) -> None:
        self._encoder = encoder
        self._repository = repository
        self._subjects = subjects
        self._images = images
        self._revisions: dict[tuple[str, ...], str] = {}
        self._patience = patience
        self._resting_until = 0.0

    async def query(self, text: str) -> tuple[Vector, str]:
        """The vector of a query, and the revision of the encoders."""
        rows, towers = await self._embed([None], [text])
        return rows[0], await self._revision(towers.versions)

    async def ad(self, subject: Subject) -> tuple[Vector, str]:
        """The vector of an ad, and the revision of the encoders."""
        stored = await self.stored(subject)
        if stored is not None:
            return stored
        rows, towers = await self._encode(subject)
        return rows[0], await self._revision(towers.versions)

    async def stored(self, subject: Subject) -> tuple[Vector, str] | None:
        """The vector that ingest stored; None unless the encoders that made it serve now."""
        if subject.vector is None:
            return None
        _, towers = await self._embed([], [])
        if subject.encoder != towers.version.partition("-s")[0]:
            return None
        return subject.vector, await self._revision(towers.versions)

    async def _embed(
        self, images: Sequence[DecodedImage | None], texts: Sequence[str | None]
    ) -> tuple[Vector, Towers]:
        """Of pairs; a while after towers that did not answer it is said at once."""
        if time.monotonic() < self._resting_until:
            raise UnavailableError("the encoders did not answer a moment ago")
        try:
            async with asyncio.timeout(self._patience.answer_s):
                deadline = Deadline.after(self._patience.answer_s)
                return await self._encoder.embed(images, texts, deadline)
        except (UnavailableError, DeadlineExceededError, TimeoutError) as error:
            self._resting_until = time.monotonic() + self._patience.rest_s
            raise UnavailableError(f"the encoders do not answer: {error}") from error

    async def _encode(self, subject: Subject) -> tuple[Vector, Towers]:
        picture = await self._subjects.picture(subject)
        image = None
        if picture is not None:
            image = await self._images.decode(picture, await self._encoder.target())
        words = Ad(0, subject.title, subject.text, None).words
        return await self._embed([image], [words])

    async def _revision(self, versions: Mapping[str, str]) -> str:
        """What the towers were made from: 12 hex digits, the same in every repository."""
        served = (versions[IMAGE], versions[TEXT])
        if served not in self._revisions:
            self._revisions = {served: await asyncio.to_thread(self._open, served)}
        return self._revisions[served]

    def _open(self, served: tuple[str, str]) -> str:
        digest = hashlib.sha256()
        try:
            for name, version in zip((IMAGE, TEXT), served, strict=True):
                source = self._repository.open(name, version).manifest.source
                digest.update(f"{name} {source.revision}\n".encode())
        except ExportError as error:
            raise UnavailableError(f"an encoder's bundle cannot be read: {error}") from error
        return digest.hexdigest()[:REVISION_DIGITS]
