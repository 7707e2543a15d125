"""The metrics of a replica, handed on to Ray, whose endpoint on each node has those of all its replicas."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from ray.serve.metrics import Gauge

from service.inference.metrics import Metrics

EXPORT_S = 5.0
"""Time between two exports, seconds."""
OF_THE_PROCESS = ("process_", "python_")
"""Ray measures the processes of its actors itself."""


class ExportedMetrics:
    """Copies every sample into a gauge of Ray, which adds the labels ``application``, ``deployment`` and ``replica``.

    Ray has no way to set a counter or the buckets of a histogram. A gauge of the same name and labels serves as well:
    ``rate`` and ``histogram_quantile`` do not look at the type.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Export ``metrics``."""
        self._metrics = metrics
        self._gauges: dict[str, Gauge] = {}

    def update(self) -> None:
        """Set all gauges to what the metrics are now."""
        text = self._metrics.write()[0].decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if not sample.name.startswith(OF_THE_PROCESS):
                    self._gauge(sample.name, family.documentation, tuple(sample.labels)).set(
                        sample.value, sample.labels
                    )

    def _gauge(self, name: str, documentation: str, labels: tuple[str, ...]) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, description=documentation, tag_keys=labels)
        return self._gauges[name]
