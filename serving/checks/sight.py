"""What the language model sees of an image: soft tokens, made by the bundle's adapter.

In: an encoded image. Out: float32 (n, H) for the prompt, by way of the image encoder's replicas.
An adapter knows one image encoder only: with another one served the judge reads words alone, and
every answer says so.
"""

import asyncio
import hashlib
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import Bundle, Repository
from export.checks import Encoder
from export.errors import ExportError
from serving import frames
from serving.config import CHECKS
from serving.encode.handles import Handle
from serving.errors import NotFoundError, UnavailableError
from serving.image import ImagePool, Target
from serving.models.handles import ModelHandle
from serving.session import Runtime, Session, open_session

GRAPH = "adapter"
KEPT = 4096  # images whose soft tokens are remembered

Soft = NDArray[np.float32]


class Sight:
    """Images to soft tokens.

    blind: why images are not looked at, None when they are. mismatched: it is because of the
    encoder that serves, not because the model was made for words alone. handle: of the image
    encoder; None: its application's.
    """

    def __init__(
        self,
        bundle: Bundle,
        encoder: Encoder | None,
        repository: Repository,
        handle: Handle | None = None,
    ) -> None:
        self._encoder = encoder
        self._repository = repository
        self._adapter: Session | None = None
        self.blind: str | None = None
        self.mismatched = False
        if GRAPH in bundle.manifest.graphs:
            self._adapter = open_session(bundle, GRAPH, Runtime("cpu", 1))
        else:
            self.blind = "the language model's bundle has no adapter: images are not looked at"
        self._name = encoder.name if encoder else "image_encoder"
        # Made with the adapter: without one there is nobody to ask.
        self._handle: Handle | None = None
        if self._adapter is not None:
            self._handle = handle or ModelHandle(self._name, CHECKS)
        self._served: tuple[str, Target] | None = None  # version, and what its pixels must be
        self._kept: OrderedDict[bytes, Soft] = OrderedDict()

    async def open(self) -> None:
        """Find out which encoder serves. Raises UnavailableError while it does not."""
        if self._handle is None:
            return
        version = await self._handle.version()
        try:
            bundle = await asyncio.to_thread(self._repository.open, self._name, version)
        except ExportError as error:
            raise UnavailableError(f"the image encoder's bundle cannot be read: {error}") from error
        found = bundle.manifest.source.revision
        self.blind = None
        self.mismatched = self._encoder is not None and found != self._encoder.revision
        if self.mismatched and self._encoder is not None:
            self.blind = (
                f"the adapter was trained on {self._name} {self._encoder.revision}, but {found} is "
                "served: images are not looked at"
            )
        _, height, width, _ = bundle.manifest.graphs["model"].inputs[0].shape
        target = Target.of(int(height), int(width), bundle.manifest.metadata.get("resize"))
        self._served = version, target

    async def look(self, picture: bytes, images: ImagePool) -> Soft | None:
        """Soft tokens (n, H), or None when images are not looked at. Raises ServingError."""
        if self._served is None:
            await self.open()
        if self.blind is not None or self._adapter is None:
            return None
        name = hashlib.sha256(picture).digest()
        kept = self._kept.get(name)
        if kept is None:
            kept = await self._make(picture, images)
            if kept is None:
                return None
            self._kept[name] = kept
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return kept

    async def _make(self, picture: bytes, images: ImagePool) -> Soft | None:
        try:
            features = await self._features(picture, images)
        except NotFoundError:  # another version serves by now
            await self.open()
            if self.blind is not None:
                return None
            features = await self._features(picture, images)
        adapter: Any = self._adapter
        out = await asyncio.to_thread(adapter.run, {"features": features})
        soft: Soft = out["soft_tokens"][0].astype(np.float32, copy=False)
        return soft

    async def _features(self, picture: bytes, images: ImagePool) -> NDArray[np.float32]:
        """(1, D) float32, as the image encoder gives them."""
        if self._served is None or self._handle is None:
            raise UnavailableError(f"{self._name} does not serve yet")
        version, target = self._served
        image = await images.decode(picture, target)
        pixels = await images.fit([image], target)
        out = await self._handle.infer({"pixels": pixels}, version)
        features = out["image_features"].astype(np.float32, copy=False)
        return frames.mean(features, [len(image.frames)])
