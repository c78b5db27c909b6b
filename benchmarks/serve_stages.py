"""What is measured, stage by stage: a request to Tessera, and the peers that it stands beside.

In: a `System`. Out: `Stage`s of `Contender`s, each one request that a load generator can make. The
first contender is Tessera, the second the same once more, as a control. The peers say what the
answer would cost with less around it: an empty route of the same protocol through the same
HAProxy, the store's own client in this process, the bare runtime session of each model.
"""

import asyncio
import io
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from export import Repository
from export.errors import ExportError
from feature_store import AsyncFeatureStore, Status
from feature_store.errors import FeatureStoreError
from serving.config import Settings
from serving.errors import ServingError
from serving.lookup.lookup_pb2 import LookupRequest, LookupResponse
from serving.session import Session, open_session

from .http1 import Http, multipart, refusal
from .load import Request
from .serve_system import FIRST_AD, NotServingError, System

VARIANTS = 64  # different requests of a stage that no cache answers, used in turn
LOOKUP_SIZES = (100, 500, 1000)
DEADLINE_MS = 1000  # what is cut off cannot be measured
TOKENS = 16
LOOKUP_RPC = "/tessera.v1.Lookup/Lookup"
EMPTY_RPC = "/inference.GRPCInferenceService/ServerLive"
WORDS = ("red", "blue", "warm", "light", "shoes", "jacket", "lamp", "chair", "sale", "new")
CONTROL = "again"
SESSIONS = {"image_encoder": "model", "text_encoder": "model", "semantic_id": "encode"}


@dataclass(frozen=True, slots=True)
class Contender:
    """`call(i)` makes the i-th request: "ok", or what was wrong with the answer."""

    name: str
    call: Request


@dataclass(frozen=True, slots=True)
class Stage:
    """Contenders that are measured interleaved; the first is Tessera, the second it again."""

    name: str
    contenders: tuple[Contender, ...]


class Stages:
    """Holds what the stages share: connections, the store's client, sessions."""

    def __init__(self, system: System, seed: int, calls: int, models: bool = True) -> None:
        """calls: the most requests of one stage to Tessera, control and warm-up included.

        models: whether bare sessions are opened as peers, where the bundles are known.
        """
        self._models = system.models if models else None
        self._system = system
        self._calls = calls
        self._random = np.random.default_rng(seed)
        self._http = Http(system.http, system.key)
        self._open = AsyncExitStack()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="bare-session")
        self._store: AsyncFeatureStore | None = None
        self._channel: Any = None
        self._sessions: dict[str, Request] = {}
        self._wrote = False

    async def open(self) -> "Stages":
        """Connect to everything. Raises NotServingError when a peer cannot be opened."""
        try:
            await self._connect()
        except (FeatureStoreError, ExportError, ServingError) as error:
            await self._open.aclose()
            raise NotServingError(str(error)) from error
        return self

    async def _connect(self) -> None:
        import grpc.aio

        self._channel = grpc.aio.insecure_channel(self._system.grpc)
        self._open.push_async_callback(self._channel.close)
        self._open.callback(self._http.close)
        self._open.callback(self._threads.shutdown)
        if self._system.redis is not None:
            # As a replica opens it: after a pass over the ids both near caches hold them.
            size = Settings.load().near_cache_bytes
            store = AsyncFeatureStore.connect(self._system.redis, near_cache_bytes=size)
            self._store = await self._open.enter_async_context(store)
        if self._models is not None:
            self._sessions = dict(self._bare(self._models))

    async def close(self) -> None:
        """Delete the ads that the ingest stage wrote, and disconnect."""
        for number in range(VARIANTS if self._wrote else 0):
            await self._http.send(self._http.request("DELETE", _own_ad(number)))
        await self._open.aclose()

    def all(self) -> Iterator[Stage]:
        """Every stage, lookups first and what writes last."""
        for size in LOOKUP_SIZES:
            yield self.lookup_http(size)
        for size in LOOKUP_SIZES:
            yield self.lookup_grpc(size)
        texts = ({"texts": [self._text(n)]} for n in range(self._calls))
        yield self._encode("embed text", "/v1/encode/embed", texts, ["text_encoder"])
        images = ({"images": [b64encode(self._jpeg()).decode()]} for _ in range(self._calls))
        yield self._encode("embed image", "/v1/encode/embed", images, ["image_encoder"])
        rows = ({"vectors": self._vectors(1).tolist()} for _ in range(self._calls))
        yield self._encode("tokenize", "/v1/encode/tokenize", rows, ["semantic_id"])
        yield self._ingest()

    def lookup_http(self, size: int) -> Stage:
        """`POST /v1/lookup` of `size` ids."""
        bodies = [
            orjson.dumps({"ad_ids": ids.tolist(), "deadline_ms": DEADLINE_MS})
            for ids in self._ids(size)
        ]
        requests = [self._http.request("POST", "/v1/lookup", body) for body in bodies]
        # Each row of the answer is a HIT and nothing is degraded: counted, not parsed.
        call = self._http_call(requests, lambda body: body.count(b'"HIT"') == size)
        empty = self._empty_route("/v1/lookup")
        return self._stage(f"lookup {size} http", call, empty, self._store_peer(size))

    def lookup_grpc(self, size: int) -> Stage:
        """`tessera.v1.Lookup` of `size` ids."""
        requests = [
            LookupRequest(
                ad_ids=ids.astype("<i8").tobytes(), deadline_ms=DEADLINE_MS
            ).SerializeToString()
            for ids in self._ids(size)
        ]
        hits = bytes([Status.HIT]) * size

        def good(body: bytes) -> bool:
            return bool(LookupResponse.FromString(body).status == hits)

        call = self._grpc_call(LOOKUP_RPC, "lookup", requests, good)
        empty = self._grpc_call(EMPTY_RPC, "image_encoder", [b""], lambda body: body == b"\x08\x01")
        return self._stage(
            f"lookup {size} grpc", call, Contender("empty rpc", empty), self._store_peer(size)
        )

    def _encode(
        self, name: str, path: str, bodies: Iterable[dict[str, Any]], models: Sequence[str]
    ) -> Stage:
        requests = [self._http.request("POST", path, orjson.dumps(body)) for body in bodies]
        call = self._fresh_call(requests, lambda body: b'"version"' in body)
        return self._stage(name, call, self._empty_route("/v1/encode"), self._models_peer(models))

    def _ingest(self) -> Stage:
        self._wrote = True
        requests = []
        for number in range(self._calls):
            text = self._text(-1 - number)
            form: dict[str, bytes | str] = {"image": self._jpeg(), "title": text, "text": text}
            put = self._http.request("PUT", _own_ad(number % VARIANTS), *multipart(form))
            requests.append(put)
        call = self._fresh_call(requests, lambda body: b'"codes"' in body)
        peer = self._models_peer(tuple(SESSIONS))
        return self._stage("ingest", call, self._empty_route("/v1/ads"), peer)

    def _stage(self, name: str, call: Request, *peers: Contender | None) -> Stage:
        own = (Contender("tessera", call), Contender(CONTROL, call))
        return Stage(name, own + tuple(p for p in peers if p is not None))

    def _http_call(self, requests: Sequence[bytes], good: Callable[[bytes], bool]) -> Request:
        async def call(number: int) -> str:
            try:
                status, body = await self._http.send(requests[number % len(requests)])
            except EOFError:
                return "connection closed"
            if status == 200 and good(body):
                return "ok"
            return refusal(status, body)

        return call

    def _fresh_call(self, requests: Sequence[bytes], good: Callable[[bytes], bool]) -> Request:
        """Each request once, whoever asks: vectors of content seen before come from a cache."""
        fresh = iter(requests)

        async def call(_: int) -> str:
            request = next(fresh, None)
            if request is None:
                return "no request is left that was not sent before"
            return await self._http_call([request], good)(0)

        return call

    def _grpc_call(
        self, rpc: str, application: str, requests: Sequence[bytes], good: Callable[[bytes], bool]
    ) -> Request:
        from grpc.aio import AioRpcError

        send = self._channel.unary_unary(rpc)  # bytes in, bytes out
        metadata = [("application", application)]
        if self._system.key:
            metadata.append(("authorization", f"Bearer {self._system.key}"))

        async def call(number: int) -> str:
            try:
                body = await send(requests[number % len(requests)], metadata=metadata)
            except AioRpcError as error:
                return f"gRPC {error.code().name}: {error.details()}"
            return "ok" if good(body) else f"gRPC: unexpected answer of {len(body)} bytes"

        return call

    def _empty_route(self, prefix: str) -> Contender:
        request = self._http.request("GET", f"{prefix}/healthz")
        return Contender("empty route", self._http_call([request], lambda body: bool(body)))

    def _store_peer(self, size: int) -> Contender | None:
        store = self._store
        if store is None:
            return None
        batches = list(self._ids(size))

        async def call(number: int) -> str:
            found = await store.lookup(batches[number % VARIANTS], deadline=DEADLINE_MS / 1000)
            return "ok" if (found.status == Status.HIT).all() else "a row is no HIT"

        return Contender("store client", call)

    def _models_peer(self, models: Sequence[str]) -> Contender | None:
        if not self._sessions:
            return None

        async def call(number: int) -> str:
            for model in models:
                await self._sessions[model](number)
            return "ok"

        return Contender("bare session", call)

    def _bare(self, models: Path) -> Iterator[tuple[str, Request]]:
        """A session of each model, opened as a replica opens it."""
        repository = Repository(models)
        for name, graph in SESSIONS.items():
            session = open_session(repository.open(name), graph)
            feed = {
                spec.name: self._tensor(spec.dtype, spec.shape) for spec in session.graph.inputs
            }
            yield name, self._session_call(session, feed)

    def _session_call(self, session: Session, feed: dict[str, NDArray[Any]]) -> Request:
        async def call(_: int) -> str:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, session.run, feed)
            return "ok"

        return call

    def _tensor(self, dtype: str, shape: tuple[int | str, ...]) -> NDArray[Any]:
        """One row; a dynamic axis behind the batch is a text of TOKENS tokens."""
        sizes = [s if isinstance(s, int) else TOKENS if at else 1 for at, s in enumerate(shape)]
        if np.dtype(dtype).kind == "f":
            return self._vectors(sizes[0], sizes[1]).astype(dtype)
        return self._random.integers(0, 2 if dtype == "int64" else 256, sizes).astype(dtype)

    def _ids(self, size: int) -> Iterator[NDArray[Any]]:
        for _ in range(VARIANTS):
            yield self._random.choice(self._system.ad_ids, size)

    def _vectors(self, rows: int, width: int = 384) -> NDArray[Any]:
        drawn = self._random.standard_normal((rows, width)).astype(np.float32)
        unit: NDArray[Any] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        return unit

    def _text(self, number: int) -> str:
        return f"{' '.join(self._random.choice(WORDS, 6))} {number}"

    def _jpeg(self) -> bytes:
        from PIL import Image

        coarse = self._random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(coarse).resize((224, 224)).save(out, "JPEG", quality=85)
        return out.getvalue()


def _own_ad(number: int) -> str:
    """Ids of their own, so that no ad that somebody else wrote is touched."""
    return f"/v1/ads/{2 * FIRST_AD + number}"
