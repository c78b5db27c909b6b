"""The reference models in this process, without Ray: towers and eyes as checks use them.

In: the repository of the reference bundles, which are made if they are missing. Out: the language
model's bundle, an encoder for `Space`, and eyes for an `Understander`.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export import Bundle, Repository
from feature_store.keys import Keys
from serving.checks.policy import Policy
from serving.checks.sight import Sight
from serving.checks.subjects import Subjects
from serving.checks.understander import Eyes
from serving.checks.vectors import PATIENT, Space
from serving.config import CHECKS
from serving.deadline import Deadline
from serving.encode.handles import ServedEncoder
from serving.encode.pipeline import IMAGE, MODELS, TEXT
from serving.errors import NotFoundError
from serving.image import ImagePool
from serving.session import Runtime, Session, open_session
from serving.tensors import Tensors

NAMESPACE = "bench"
FOLDER = Path("var/models")  # as `python -m serving up` keeps them
MAX_PIXELS = 1 << 20
THREADS = 2


class NearModel:
    """A `Handle` of a model of this process; its session is opened when it is first asked."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._session: Session | None = None

    async def version(self) -> str:
        return self._bundle.manifest.version

    async def infer(
        self, tensors: Tensors, version: str | None = None, deadline: Deadline | None = None
    ) -> Tensors:
        del deadline
        if version not in (None, self._bundle.manifest.version):
            raise NotFoundError(f"{self._bundle.manifest.name} {version} is not here")
        if self._session is None:
            self._session = open_session(self._bundle, "model", Runtime("cpu", 1))
        return await asyncio.to_thread(self._session.run, tensors)


@dataclass(frozen=True, slots=True)
class NearModels:
    """bundle: of the language model. Subjects that came with a request are all that is known.

    towers, images, picture: the encoder behind `space`, what decodes for it, its image tower.
    """

    bundle: Bundle
    towers: ServedEncoder
    images: ImagePool
    picture: NearModel
    space: Space
    eyes: Eyes


def open_near() -> NearModels:
    """Open them; those that are missing are exported first."""
    from export import shipped

    repository = Repository(FOLDER)
    shipped.make(repository, (*MODELS, CHECKS), lambda _name, _what: None)
    images = ImagePool(THREADS, max_pixels=MAX_PIXELS)
    handles = {name: NearModel(repository.open(name)) for name in MODELS}
    bundle = repository.open(CHECKS)
    nothing_stored: Any = None
    subjects = Subjects(nothing_stored, Keys(NAMESPACE))
    sight = Sight(bundle, Policy.of(bundle).checks.encoder, repository, handles[IMAGE])
    encoder = ServedEncoder(repository, images, handles)
    space = Space(encoder, repository, subjects, images, PATIENT)
    eyes = Eyes(subjects, sight, images)
    return NearModels(bundle, encoder, images, handles[IMAGE], space, eyes)


__all__ = ["IMAGE", "NAMESPACE", "TEXT", "NearModel", "NearModels", "open_near"]
