"""The store's counters for Prometheus, where `prometheus-client` is installed.

In: a store. Out: a collector to register. The store counts in plain integers on every lookup; this
only reads them when Prometheus scrapes, so metrics cost lookups nothing.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from .errors import MissingExtraError


class Counted(Protocol):
    """Either store."""

    @property
    def namespace(self) -> str: ...

    @property
    def counters(self) -> dict[str, int]: ...

    @property
    def latency_us(self) -> list[int]: ...


class StoreCollector:
    """`prometheus_client.REGISTRY.register(StoreCollector(store))`.

    Gives `tessera_store_events_total{namespace, event}` (lookups, ids, unavailable, corrupt, near
    hits, near misses) and the histogram `tessera_store_lookup_seconds{namespace}`.
    Raises MissingExtraError.
    """

    def __init__(self, store: Counted) -> None:
        try:
            import prometheus_client  # noqa: F401 - says early what is missing
        except ImportError as error:
            raise MissingExtraError(
                "metrics need prometheus-client: pip install prometheus-client"
            ) from error
        self._store = store

    def collect(self) -> Iterator[Any]:
        """The metrics as they stand."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        labels = [self._store.namespace]
        events = CounterMetricFamily(
            "tessera_store_events", "What happened in the store.", labels=["namespace", "event"]
        )
        for event, count in sorted(self._store.counters.items()):
            if event != "lookup us":
                events.add_metric([*labels, event.replace(" ", "_")], count)
        yield events
        buckets, total = [], 0
        counts = self._store.latency_us
        for power, count in enumerate(counts[:-1]):
            total += count
            buckets.append((f"{2**power / 1e6:g}", total))
        total += counts[-1]
        buckets.append(("+Inf", total))
        seconds = self._store.counters.get("lookup us", 0) / 1e6
        latency = HistogramMetricFamily(
            "tessera_store_lookup_seconds", "Latency of lookups.", labels=["namespace"]
        )
        latency.add_metric(labels, buckets, seconds)
        yield latency
