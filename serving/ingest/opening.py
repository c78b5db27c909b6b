"""Opens what ingest works with: the store, the content keys' client, the encoder's handles.

In: settings. Out: an `Indexer`. URLs are those of the feature store: plain, cluster, sentinel.
"""

from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import ConnectionError as LostConnectionError

from feature_store import AsyncFeatureStore
from feature_store.address import parse
from feature_store.errors import FeatureStoreError
from serving import bundles
from serving.checks.owed import Owed
from serving.config import Settings
from serving.encode.handles import ServedEncoder
from serving.errors import ConfigurationError, UnavailableError
from serving.image import ImagePool
from serving.ingest.content import ContentStore
from serving.ingest.indexing import Indexer
from serving.ingest.writing import Stores, Writer

IMAGE_THREADS = 2
TIMEOUT_S = 5.0


async def open_indexer(settings: Settings) -> Indexer:
    """Raises UnavailableError or ConfigurationError when the store cannot be opened."""
    try:
        store = await open_store(settings)
        client = connect(settings.redis_url)
        stores = Stores(store, ContentStore(client, store.keys), Owed(client, store.keys))
    except FeatureStoreError as error:
        kind = ConfigurationError if isinstance(error, ValueError) else UnavailableError
        raise kind(str(error)) from error
    images = ImagePool(IMAGE_THREADS, max_pixels=settings.image_pixels)
    encoder = ServedEncoder(bundles.repository(settings), images, "ingest")
    return Indexer(encoder, Writer(stores), images)


async def open_store(settings: Settings) -> AsyncFeatureStore:
    """A store to write to: versions that it begins have the configured layout.

    Raises FeatureStoreError: an InputError for settings of the layout that do not fit together.
    """
    return await AsyncFeatureStore.connect(
        settings.redis_url,
        namespace=settings.namespace,
        layout=settings.store_layout,
        expected_ads=settings.store_expected_ads,
    )


def connect(url: str) -> Any:
    """A redis.asyncio client for any URL that the feature store takes. Raises AddressError."""
    address = parse(url)
    wait: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    # An idle connection dies with its server, unnoticed: what it is asked first is asked again on
    # a new one. Not what timed out, which may be under way.
    again: dict[str, Any] = {"retry": Retry(NoBackoff(), 1, (LostConnectionError,))}
    if address.kind == "single":
        return Redis.from_url(url, **wait, **again)
    scheme, rest = url.split("://", 1)
    seed = address.seeds[0]
    login, at, tail = rest.rpartition("@")
    path = tail.partition("/")[2]
    # redis-py reads TLS files and logins from a plain URL; the hosts come from the address.
    plain = f"{scheme.partition('+')[0]}://{login}{at}{seed.host}:{seed.port}"
    query = path.partition("?")[2] or tail.partition("?")[2]
    options: dict[str, Any] = parse_url(  # type: ignore[no-untyped-call]
        f"{plain}/{address.database}" + (f"?{query}" if query else "")
    )
    shared = {k: v for k, v in options.items() if k not in ("host", "port", "connection_class")}
    if scheme.startswith("rediss"):
        shared["ssl"] = True
    if address.kind == "cluster":
        shared.pop("db", None)
        nodes = [ClusterNode(node.host, node.port) for node in address.seeds]
        return RedisCluster(startup_nodes=nodes, **shared, **wait)
    tls = {name: value for name, value in shared.items() if name.startswith("ssl")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [(node.host, node.port) for node in address.seeds], sentinel_kwargs=wait | tls
    )
    return sentinel.master_for(address.master, **shared, **wait, **again)
