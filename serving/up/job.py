"""The main job in one screen: inputs, store, cluster, ingest, lookups, summary, then wait.

In: `Options`. Out: an exit code; 0 also after Ctrl-C or SIGTERM once everything was ready.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from feature_store import FeatureStore
from feature_store.embedded import EmbeddedValkey
from feature_store.errors import CoverageError, FeatureStoreError
from feature_store.watching import Watch
from serving.auth import SCOPES, new_key
from serving.config import CHECKS, ExtraKey, Settings, Topology, apply_environment, topology
from serving.errors import MainJobError
from serving.up import grpc_side, inputs, signals, summary
from serving.up.checking import check
from serving.up.cluster import Cluster, running
from serving.up.creatives import Catalogue
from serving.up.locking import locked
from serving.up.options import Options, reading
from serving.up.progress import step
from serving.up.stages import Outcome, Stage, write_atomically
from serving.up.traffic import FrontDoor

STORE = Path("var/store")
INTERRUPTED = 130


class Store:
    """The server that everything is written to; `server` None: not ours."""

    def __init__(self, url: str, server: EmbeddedValkey | None) -> None:
        self.url = url
        self._server = server

    def alive(self) -> bool:
        """False once the embedded server has ended."""
        if self._server is None:
            return True
        try:
            return psutil.Process(self._server.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def run(options: Options) -> int:
    """Do the main job; MainJobError or ConfigurationError when it cannot be done."""
    ready = False
    with ExitStack() as stack:
        signals.install()
        try:
            catalogue = inputs.open_creatives(options.creatives)
            bundles = inputs.open_bundles(options.models, llm=options.llm, key=options.models_key)
            lock = [stack.enter_context(locked(STORE))] if options.persist else []
            watch = stack.enter_context(Watch(lock))
            store = stack.enter_context(_store(options, watch))
            key, overrides = _own_key(options)
            apply_environment({"TESSERA_REDIS_URL": store.url})
            layout = topology(
                "development",
                models=tuple(bundles.models),
                host=options.host,
                port=options.port,
                grpc_port=options.grpc_port,
                checks=bool(bundles.checks),
            )
            folder = stack.enter_context(_folder())
            watch.folder(folder)
            settings = overrides | {"models": str(options.models)}
            if options.models_key is not None:
                settings["models_public_key"] = str(options.models_key)
            cluster = stack.enter_context(running(layout, settings, folder))
            outcome = signals.run(_traffic(cluster, layout, catalogue, key, store))
            outcome = replace(
                outcome, versions=dict(outcome.versions) | bundles.models | bundles.checks
            )
            if options.json is not None:
                with reading("--json"):
                    write_atomically(options.json, outcome.as_json())
            summary.show(outcome, layout, keys=options.keys is not None)
            ready = True
            if not options.once:
                _wait(store)
        except KeyboardInterrupt:
            return 0 if ready else INTERRUPTED
        finally:
            signals.ignore()  # the shutdown is let finish
    return 0


async def _traffic(
    cluster: Cluster, layout: Topology, catalogue: Catalogue, key: str | None, store: Store
) -> Outcome:
    """Ingest and look up; MainJobError if a stored ad is no HIT."""
    async with FrontDoor(cluster.http, key, store.alive) as door:
        with step("waiting for the front door"):
            await door.wait_ready(
                [app.route_prefix for app in layout.applications if app.name != CHECKS]
            )
            await grpc_side.wait_ready(cluster.grpc, layout.applications)
        ingested = await door.ingest(catalogue.creatives)
        if not ingested.stored or ingested.version is None:
            reasons = "; ".join(f"{s}: {r}" for s, r in ingested.problems[:3])
            raise MainJobError(f"no creative could be ingested: {reasons}")
        notes = await asyncio.to_thread(_activate, store.url, ingested.version)
        # What is not active yet is looked up by its name.
        found = await door.lookup(ingested.stored, ingested.version if notes else None)
        # Last: ads are looked up while the engine is still starting.
        stages: dict[str, Stage] = {"ingest": ingested.stage, "lookup": found.stage}
        if not found.missing and any(app.name == CHECKS for app in layout.applications):
            checked = await check(door, catalogue.creatives, ingested.stored)
            stages |= checked.stages
            notes += checked.notes
    if found.missing:
        shown = ", ".join(f"{ad_id} {status}" for ad_id, status in found.missing[:10])
        raise MainJobError(f"{len(found.missing)} ads that were stored are no HIT: {shown}")
    if found.blocked:
        notes += (f"{found.blocked} ads are BLOCKED by an earlier takedown",)
    return Outcome(
        stages=stages,
        versions={"active": found.version},
        served={
            "http": cluster.http,
            "grpc": cluster.grpc,
            "metrics": cluster.metrics,
            "logs": str(cluster.logs),
            "applications": {app.name: app.route_prefix for app in layout.applications},
        },
        problems=(*catalogue.refused, *ingested.problems),
        notes=notes,
    )


def _activate(url: str, version: str) -> tuple[str, ...]:
    """Serve what was just written, unless the store holds more ads than this catalogue."""
    try:
        with FeatureStore.connect(url, namespace=Settings.load().namespace) as store:
            active = next((v.name for v in store.versions() if v.state == "active"), None)
            if active != version:
                store.activate(version)
    except CoverageError as error:
        return (f"version {version} is written but not active: {error}",)
    except FeatureStoreError as error:
        raise MainJobError(f"the feature store failed: {error}") from error
    return ()


def _own_key(options: Options) -> tuple[str | None, dict[str, Any]]:
    """A key of this process alone, known to the applications by its hash."""
    if options.keys is None:
        return None, {}
    key, digest = new_key()
    extra = ExtraKey(name="up", key_sha256=digest, scopes=SCOPES)
    return key, {
        "extra_keys": [extra.model_dump(mode="json")],
        "api_keys_file": str(options.keys),
    }


@contextmanager
def _store(options: Options, watch: Watch) -> Iterator[Store]:
    if options.redis is not None:
        try:
            with FeatureStore.connect(options.redis) as store:
                store.versions()
        except FeatureStoreError as error:
            raise MainJobError(f"the store of --redis or TESSERA_REDIS_URL: {error}") from error
        yield Store(options.redis, None)
        return
    with ExitStack() as stack:
        with step("starting Valkey"):
            folder = STORE if options.persist else None
            try:
                server = stack.enter_context(EmbeddedValkey(folder, started=watch.pid))
            except FeatureStoreError as error:
                raise MainJobError(str(error)) from error
        yield Store(server.url, server)


@contextmanager
def _folder() -> Iterator[Path]:
    """Ray's folder: removed when all went well, kept with its logs when it did not."""
    # Below /tmp: HAProxy refuses sockets whose path is over 97 bytes.
    with reading("Ray's folder"):
        folder = Path(tempfile.mkdtemp(prefix="tessera-", dir="/tmp"))
    try:
        yield folder
    except MainJobError as error:
        raise MainJobError(f"{error.detail} (logs: {folder})") from error
    shutil.rmtree(folder, ignore_errors=True)


def _wait(store: Store) -> None:
    """Until Ctrl-C or SIGTERM; MainJobError when the embedded store ends before."""
    print("\nReady. Ctrl-C ends it.", flush=True)
    while store.alive():
        time.sleep(0.5)
    raise MainJobError("the embedded Valkey has ended; what it held is gone unless --persist")
