"""What Prometheus is told."""

import pytest
from prometheus_client import CollectorRegistry

from feature_store import FeatureStore
from feature_store.metrics import StoreCollector


def test_lookups_are_counted(valkey_url: str) -> None:
    registry = CollectorRegistry()
    with FeatureStore.connect(valkey_url) as store:
        registry.register(StoreCollector(store))
        for _ in range(10):
            store.lookup([1, 2, 3])
        labels = {"namespace": "ads"}
        events = "tessera_store_events_total"
        assert registry.get_sample_value(events, {**labels, "event": "lookups"}) == 10
        assert registry.get_sample_value(events, {**labels, "event": "ids"}) == 30
        name = "tessera_store_lookup_seconds"
        assert registry.get_sample_value(f"{name}_count", labels) == 10
        whole = registry.get_sample_value(f"{name}_sum", labels)
        assert whole is not None
        assert whole > 0
        inf = registry.get_sample_value(f"{name}_bucket", {**labels, "le": "+Inf"})
        assert inf == 10
        least = registry.get_sample_value(f"{name}_bucket", {**labels, "le": "1e-06"})
        assert least == 0


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch, here: FeatureStore) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(ImportError, match="pip install prometheus-client"):
        StoreCollector(here)
