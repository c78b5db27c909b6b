"""The encoder over the model applications: Serve handles in front, bundles for what they need.

In: the repository's folder. Out: an `Encoder` whose calls go to the replicas that serve the
models, so each model is in memory once. The versions are read from the replicas and named in each
call: rows of two versions never mix. When a version has been replaced, the next call opens anew.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from export import Bundle, Repository
from export.errors import ExportError
from serving.deadline import Deadline
from serving.encode.cache import CachedInfer
from serving.encode.pipeline import (
    IMAGE,
    MODELS,
    SEMANTIC_ID,
    TEXT,
    Encoded,
    Encoder,
    Towers,
    Vectors,
)
from serving.encode.text import TextTokenizer
from serving.errors import NotFoundError, UnavailableError
from serving.image import DecodedImage, ImagePool, Target
from serving.models.handles import ModelHandle
from serving.tensors import Tensors

# One call's tensors stay below gRPC's and HAProxy's comfort; the batcher joins the parts again.
CALL_BYTES = 2 << 20
# Rows that need no image would not notice a new image tower, but their version's name must.
RECHECK_S = 1.0
SWAP_PAUSES_S = (0.0, 0.1, 0.3, 0.6)  # replicas swap a model within seconds of each other
_Answer = TypeVar("_Answer")


class Handle(Protocol):
    """One model, wherever it is: a `ModelHandle`, or a model of this process in tools and tests."""

    async def infer(
        self, tensors: Tensors, version: str | None = None, deadline: Deadline | None = None
    ) -> Tensors:
        """Run the default graph at `version`; NotFoundError if another one serves."""

    async def version(self) -> str:
        """The version that serves. Raises UnavailableError."""


class ModelHandles:
    """`infer` of the model applications, each at one version."""

    def __init__(self, handles: Mapping[str, Handle], versions: Mapping[str, str]) -> None:
        self._handles = handles
        self._versions = versions

    async def __call__(
        self, name: str, tensors: Tensors, deadline: Deadline | None = None
    ) -> Tensors:
        """Run the model's default graph, in parts of at most CALL_BYTES."""
        rows = len(next(iter(tensors.values())))
        row_bytes = sum(array.nbytes for array in tensors.values()) // max(rows, 1)
        step = max(1, CALL_BYTES // max(row_bytes, 1))
        parts = await asyncio.gather(
            *(
                self._handles[name].infer(
                    {key: array[at : at + step] for key, array in tensors.items()},
                    self._versions[name],
                    deadline,
                )
                for at in range(0, rows, step)
            )
        )
        if len(parts) == 1:
            return parts[0]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def towers(bundles: dict[str, Bundle]) -> Towers:
    """What the encoder must know of its models, from their bundles.

    Raises UnavailableError when the tokenizer was learned on other encoders than these: its codes
    would be well-formed and wrong.
    """
    image, text, semantic_id = (bundles[name].manifest for name in (IMAGE, TEXT, SEMANTIC_ID))
    learned_on = semantic_id.metadata.get("encoders")
    if isinstance(learned_on, dict):
        served = {manifest.name: manifest.source.revision for manifest in (image, text)}
        for name, revision in learned_on.items():
            if served.get(name) != revision:
                raise UnavailableError(
                    f"semantic_id {semantic_id.version} was learned on {name} {revision}, "
                    f"but {served.get(name, 'no such encoder')} is served; train it on this one, "
                    "or load the version that it was learned on"
                )
    _, height, width, _ = image.graphs["model"].inputs[0].shape
    dimension = image.graphs["model"].outputs[0].shape[-1]
    settings = text.metadata.get("tokenizer")
    settings = settings if isinstance(settings, dict) else {}
    path = bundles[TEXT].file(str(settings.get("file", "tokenizer.json")))
    tokenizer = TextTokenizer(path, int(settings.get("max_length", 128)))
    versions = {name: bundle.manifest.version for name, bundle in bundles.items()}
    target = Target.of(int(height), int(width), image.metadata.get("resize"))
    return Towers(tokenizer, target, int(dimension), versions)


async def served_versions(handles: Mapping[str, Handle]) -> dict[str, str]:
    """The version of each model that its replicas serve. Raises UnavailableError."""
    found = await asyncio.gather(*(handle.version() for handle in handles.values()))
    return dict(zip(handles, found, strict=True))


async def connect(
    repository: Repository, handles: Mapping[str, Handle], images: ImagePool
) -> Encoder:
    """An encoder over the versions that are served now.

    Raises UnavailableError while a model application does not answer.
    """
    versions = await served_versions(handles)

    def read() -> Towers:
        try:
            return towers({name: repository.open(name, versions[name]) for name in MODELS})
        except ExportError as error:
            raise UnavailableError(f"the bundle that is served cannot be read: {error}") from error

    cached = CachedInfer(ModelHandles(handles, versions), (IMAGE, TEXT))
    return Encoder(cached, await asyncio.to_thread(read), images)


class ServedEncoder:
    """An `Encoder` over handles, opened at the first call and again when a model was replaced.

    The same methods as `Encoder`; each may raise UnavailableError too. handles: by model name, or
    the name of the application that calls: then they are those of the model applications.
    """

    def __init__(
        self, repository: Repository, images: ImagePool, handles: Mapping[str, Handle] | str
    ) -> None:
        self._repository = repository
        self._images = images
        if isinstance(handles, str):
            handles = {name: ModelHandle(name, handles) for name in MODELS}
        self._handles = handles
        self._encoder: Encoder | None = None
        self._checked = 0.0
        self._lock = asyncio.Lock()

    async def ready(self) -> None:
        """Raises UnavailableError while a model application does not answer."""
        await served_versions(self._handles)

    async def encode(
        self,
        images: Sequence[DecodedImage | None],
        texts: Sequence[str | None],
        deadline: Deadline | None = None,
    ) -> Encoded:
        """See `Encoder.encode`."""
        return await self._run(lambda encoder: encoder.encode(images, texts, deadline))

    async def embed(
        self,
        images: Sequence[DecodedImage | None],
        texts: Sequence[str | None],
        deadline: Deadline | None = None,
    ) -> tuple[Vectors, Towers]:
        """See `Encoder.embed`; with what made the vectors."""

        async def call(encoder: Encoder) -> tuple[Vectors, Towers]:
            return await encoder.embed(images, texts, deadline), encoder.towers

        return await self._run(call)

    async def tokenize(self, vectors: Vectors, deadline: Deadline | None = None) -> Encoded:
        """See `Encoder.tokenize`. Raises InvalidRequestError for vectors of another length."""

        async def call(encoder: Encoder) -> Encoded:
            encoder.check(vectors)
            codes, margin = await encoder.tokenize(vectors, deadline)
            return Encoded(vectors, codes, margin, encoder.version)

        return await self._run(call)

    async def target(self) -> Target:
        """What pictures are fitted to: what a decoder may shrink them towards."""
        return (await self._open(None)).towers.target

    async def _run(self, call: Callable[[Encoder], Awaitable[_Answer]]) -> _Answer:
        encoder = await self._open(None)
        for pause_s in SWAP_PAUSES_S:
            try:
                return await call(encoder)
            except NotFoundError:  # a version that this replica serves no longer, or not yet
                await asyncio.sleep(pause_s)
                encoder = await self._open(encoder)
        try:
            return await call(encoder)
        except NotFoundError as error:
            raise UnavailableError(f"models are being replaced: {error}; try again") from error

    async def _open(self, stale: Encoder | None) -> Encoder:
        """The encoder, opened anew if it is still `stale` or other versions serve by now."""
        async with self._lock:
            if self._encoder is None or self._encoder is stale:
                self._encoder = await connect(self._repository, self._handles, self._images)
            elif time.monotonic() - self._checked > RECHECK_S:
                if await served_versions(self._handles) != self._encoder.towers.versions:
                    self._encoder = await connect(self._repository, self._handles, self._images)
            else:
                return self._encoder
            self._checked = time.monotonic()
            return self._encoder
