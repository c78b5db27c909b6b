"""Opens what a replica of checks works with: bundle, store, engine handle, image encoder.

In: settings and options. Out: a `Bench`: the judge, and what answers and completes around it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from export.prompts import Renderer
from feature_store import AsyncFeatureStore
from feature_store.address import parse
from feature_store.errors import FeatureStoreError
from serving import bundles
from serving.checks.cascade import Before, Cascade
from serving.checks.completing import Completer, Records
from serving.checks.flights import Reader
from serving.checks.hearing import FRESH_S, Hearing
from serving.checks.judge import Judge
from serving.checks.judges import Judges
from serving.checks.overrides import Overrides
from serving.checks.owed import Owed
from serving.checks.policies import SHIPPED, PolicyBook
from serving.checks.policy import Policy, label_ids, model_version
from serving.checks.remembered import Remembered
from serving.checks.sight import Sight
from serving.checks.spreading import Spreading
from serving.checks.subjects import Subjects
from serving.checks.understander import LATER, SOON, Eyes, Understander
from serving.checks.vectors import PATIENT, Encodes, Space
from serving.checks.verdicts import Scope, Stores, prefixes
from serving.checks.warming import Warming
from serving.errors import ConfigurationError, UnavailableError
from serving.image import ImagePool
from serving.ingest.opening import connect, open_store
from serving.llm.deployment import LlmOptions, open_bundle
from serving.llm.handle import LlmHandle
from serving.replica import Replica

IMAGE_THREADS = 2
CALL_S = 30.0


@dataclass(frozen=True, slots=True)
class Bench:
    """What one replica works with."""

    judges: Judges
    book: PolicyBook
    model: Callable[[Policy], Understander]
    space: Space | None
    subjects: Subjects
    sight: Sight
    owed: Owed
    overrides: Overrides
    hearing: Hearing | None
    spreading: Spreading | None
    warming: Warming
    engine: LlmHandle
    completer: Completer
    store: AsyncFeatureStore
    client: Any
    images: ImagePool

    @property
    def judge(self) -> Judge:
        """The judge of the default policy."""
        return self.judges.of(None)

    async def close(self) -> None:
        """Close connections and threads; for whoever opens one outside of a replica."""
        await self.client.aclose()
        await self.store.close()
        self.images.close()


async def open_bench(
    replica: Replica, options: LlmOptions, llm: Any, encoder: Encodes | None = None
) -> Bench:
    """`llm`: Serve's handle of the engine's deployment. encoder: None: nothing stands before it.

    Raises UnavailableError or ConfigurationError when something cannot be opened."""
    settings = replica.settings
    repository = bundles.repository(settings)
    bundle = await asyncio.to_thread(open_bundle, repository, options)
    own = Policy.of(bundle).checks
    try:
        store = await open_store(settings)
        client: Any = connect(settings.redis_url)
    except FeatureStoreError as error:
        kind = ConfigurationError if isinstance(error, ValueError) else UnavailableError
        raise kind(str(error)) from error
    engine = LlmHandle(llm)
    sight = Sight(bundle, own.encoder, repository)
    subjects = Subjects(client, store.keys)
    images = ImagePool(IMAGE_THREADS, max_pixels=settings.image_pixels)
    eyes = Eyes(subjects, sight, images)
    labels = label_ids(bundle)
    readers = {priority: Reader(engine, labels, CALL_S) for priority in (SOON, LATER)}
    renderer = Renderer(bundle.file("tokenizer.json"), own)
    folder = settings.policies or SHIPPED
    book = await asyncio.to_thread(PolicyBook, folder, bundle, renderer)
    model = model_version(bundle)
    # One server says what changes; of several, one that was replaced may not know that it was.
    address = parse(settings.redis_url)
    hearing = Hearing(address, prefixes(store.keys)) if address.kind == "single" else None
    overrides = Overrides(client, store.keys, 0.0 if hearing is None else FRESH_S)
    stores = Stores.of(client, None if hearing is None else Remembered(hearing))
    before: Before | None = None
    spreading: Spreading | None = None
    space: Space | None = None
    if encoder is not None:
        hurried = Space(encoder, repository, subjects, images)
        space = Space(encoder, repository, subjects, images, PATIENT)
        spreading = Spreading(client, store, subjects, hurried)
        said = Stores.of(client)
        before = Before(hurried, spreading.creatives, overrides, said.relevance, said.risk)

    def ask(policy: Policy) -> Understander:
        return Understander(policy, renderer, eyes, readers, engine)

    def make(policy: Policy) -> Judge:
        def scope() -> Scope:
            # A verdict of words alone is another one than that of words and image.
            seen = model if sight.blind is None else f"{model}-words"
            return Scope(settings.namespace, policy.version, seen)

        makes = Cascade(ask(policy), policy, before, scope) if before else ask(policy)
        return Judge(policy, makes, scope, stores, overrides.names)

    judges = Judges(book, make)
    owed = Owed(client, store.keys)
    completer = Completer(judges, subjects, owed, Records(store, spreading), replica.metrics)
    return Bench(
        judges,
        book,
        ask,
        space,
        subjects,
        sight,
        owed,
        overrides,
        hearing,
        spreading,
        Warming(book, ask),
        engine,
        completer,
        store,
        client,
        images,
    )
