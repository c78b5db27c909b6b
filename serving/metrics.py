"""A small facade over metrics, so that rooms name them once and tests need no Ray.

In: `inc` and `observe` with tags. Out: in a replica `ray.serve.metrics` (which adds the tags
application, deployment and replica, exports them at the node's `/metrics` with prefix `ray_`
and appends `_total` to counters: name them without); elsewhere plain dictionaries.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

LATENCY_MS = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 200, 500, 1000, 2000, 5000, 10000)
Tags = Mapping[str, str]


class Counter(Protocol):
    """A number that only grows."""

    def inc(self, value: float = 1.0, tags: Tags | None = None) -> None: ...


class Histogram(Protocol):
    """Observations counted in buckets."""

    def observe(self, value: float, tags: Tags | None = None) -> None: ...


class Gauge(Protocol):
    """A number as it is now."""

    def set(self, value: float, tags: Tags | None = None) -> None: ...


class Metrics(Protocol):
    """Where metrics come from; a name may be asked for again."""

    def counter(self, name: str, description: str, tag_keys: Sequence[str] = ()) -> Counter: ...

    def gauge(self, name: str, description: str, tag_keys: Sequence[str] = ()) -> Gauge: ...

    def histogram(
        self,
        name: str,
        description: str,
        boundaries: Sequence[float] = LATENCY_MS,
        tag_keys: Sequence[str] = (),
    ) -> Histogram: ...


class _MemoryMetric:
    def __init__(self) -> None:
        self.values: dict[tuple[tuple[str, str], ...], list[float]] = defaultdict(list)

    def inc(self, value: float = 1.0, tags: Tags | None = None) -> None:
        self.observe(value, tags)

    def observe(self, value: float, tags: Tags | None = None) -> None:
        self.values[tuple(sorted((tags or {}).items()))].append(value)

    def set(self, value: float, tags: Tags | None = None) -> None:
        self.values[tuple(sorted((tags or {}).items()))] = [value]


class MemoryMetrics:
    """Metrics in this process; `total` and `count` read them back."""

    def __init__(self) -> None:
        self._metrics: dict[str, _MemoryMetric] = defaultdict(_MemoryMetric)

    def counter(self, name: str, description: str, tag_keys: Sequence[str] = ()) -> Counter:
        del description, tag_keys
        return self._metrics[name]

    def gauge(self, name: str, description: str, tag_keys: Sequence[str] = ()) -> Gauge:
        del description, tag_keys
        return self._metrics[name]

    def histogram(
        self,
        name: str,
        description: str,
        boundaries: Sequence[float] = LATENCY_MS,
        tag_keys: Sequence[str] = (),
    ) -> Histogram:
        del description, boundaries, tag_keys
        return self._metrics[name]

    def _observed(self, name: str, tags: Mapping[str, str]) -> list[float]:
        wanted = set(tags.items())
        return [
            v for key, vs in self._metrics[name].values.items() if wanted <= set(key) for v in vs
        ]

    def total(self, name: str, **tags: str) -> float:
        """Sum of everything observed under `name` with at least these tags."""
        return sum(self._observed(name, tags))

    def count(self, name: str, **tags: str) -> int:
        """How many observations there are under `name` with at least these tags."""
        return len(self._observed(name, tags))


def _keys(tag_keys: Sequence[str]) -> Any:
    return tuple(tag_keys)  # Ray annotates `Tuple[str]` and means any length


class _RayCounter:
    def __init__(self, name: str, description: str, tag_keys: Sequence[str]) -> None:
        from ray.serve import metrics

        self._metric = metrics.Counter(name, description=description, tag_keys=_keys(tag_keys))

    def inc(self, value: float = 1.0, tags: Tags | None = None) -> None:
        self._metric.inc(value, tags=dict(tags or {}))


class _RayGauge:
    def __init__(self, name: str, description: str, tag_keys: Sequence[str]) -> None:
        from ray.serve import metrics

        self._metric = metrics.Gauge(name, description=description, tag_keys=_keys(tag_keys))

    def set(self, value: float, tags: Tags | None = None) -> None:
        self._metric.set(value, tags=dict(tags or {}))


class _RayHistogram:
    def __init__(
        self, name: str, description: str, boundaries: Sequence[float], tag_keys: Sequence[str]
    ) -> None:
        from ray.serve import metrics

        self._metric = metrics.Histogram(
            name,
            description=description,
            boundaries=[float(b) for b in boundaries],
            tag_keys=_keys(tag_keys),
        )

    def observe(self, value: float, tags: Tags | None = None) -> None:
        self._metric.observe(value, tags=dict(tags or {}))


class RayMetrics:
    """Metrics of a Serve replica; make it inside the replica, it does not pickle."""

    def __init__(self) -> None:
        self._counters: dict[str, _RayCounter] = {}
        self._gauges: dict[str, _RayGauge] = {}
        self._histograms: dict[str, _RayHistogram] = {}

    def counter(self, name: str, description: str, tag_keys: Sequence[str] = ()) -> Counter:
        if name not in self._counters:
            self._counters[name] = _RayCounter(name, description, tag_keys)
        return self._counters[name]

    def gauge(self, name: str, description: str, tag_keys: Sequence[str] = ()) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = _RayGauge(name, description, tag_keys)
        return self._gauges[name]

    def histogram(
        self,
        name: str,
        description: str,
        boundaries: Sequence[float] = LATENCY_MS,
        tag_keys: Sequence[str] = (),
    ) -> Histogram:
        if name not in self._histograms:
            self._histograms[name] = _RayHistogram(name, description, boundaries, tag_keys)
        return self._histograms[name]
