"""Counters, gauges and histograms of one collector registry."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

_Child = TypeVar("_Child", bound=MetricWrapperBase)


class Children(dict[Hashable, _Child]):
    """The children of a metric by their label values; looking one up in the metric takes a lock and builds a tuple."""

    def __init__(self, metric: _Child) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, key: Hashable) -> _Child:
        values = key if isinstance(key, tuple) else (key,)
        child = self[key] = self._metric.labels(*values)
        return child


class Instruments:
    """Makes the metrics of one collector registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, meaning: str, *labels: str) -> Counter:
        """Make a counter."""
        return Counter(name, meaning, labels, registry=self._registry)

    def gauge(self, name: str, meaning: str, across: Literal["sum", "min", "max"], *labels: str) -> Gauge:
        """Make a gauge; ``across`` says how the values of several server processes become one."""
        return Gauge(name, meaning, labels, registry=self._registry, multiprocess_mode=f"live{across}")  # type: ignore[arg-type] # one of the library's literals

    def histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        """Make a histogram; ``buckets`` are the upper bounds of its buckets."""
        return Histogram(name, meaning, labels, buckets=buckets, registry=self._registry)
