"""Metrics in memory behave as the facade says."""

from serving.metrics import MemoryMetrics


def test_counts_and_observations_are_kept_by_tags() -> None:
    metrics = MemoryMetrics()
    counter = metrics.counter("requests", "how many", ("route",))
    counter.inc(tags={"route": "/a"})
    metrics.counter("requests", "how many", ("route",)).inc(2, tags={"route": "/b"})
    metrics.histogram("ms", "how long").observe(3.5)
    assert metrics.total("requests") == 3
    assert metrics.total("requests", route="/b") == 2
    assert (metrics.count("ms"), metrics.total("ms")) == (1, 3.5)
    assert metrics.total("unknown") == 0
