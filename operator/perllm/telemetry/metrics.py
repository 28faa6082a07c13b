"""What telemetry tells of itself."""

import math
from collections import Counter
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as CounterMetric

from perllm.telemetry.snapshot import NodeFigures, Quality, Snapshot

_QUERY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class TelemetryMetrics:
    """The metrics ``perllm_telemetry_*`` in a registry of the caller's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.up = Gauge("perllm_telemetry_up", "1 if the last poll of Prometheus succeeded.", registry=registry)
        self.age = Gauge(
            "perllm_telemetry_age_seconds", "Time since the last poll that succeeded; NaN before.", registry=registry
        )
        self.query_time = Histogram(
            "perllm_telemetry_query_seconds",
            "Time a query to Prometheus took.",
            ["metric"],
            buckets=_QUERY_BUCKETS_S,
            registry=registry,
        )
        self.failures = CounterMetric(
            "perllm_telemetry_failures_total", "Polls of Prometheus that failed.", registry=registry
        )
        self.nodes = Gauge(
            "perllm_telemetry_nodes", "Nodes by quality of a figure.", ["figure", "quality"], registry=registry
        )
        self.unmapped = Gauge(
            "perllm_telemetry_unmapped_series",
            "Series whose labels tell no known GPU node; normal for metrics that other nodes have too.",
            ["metric"],
            registry=registry,
        )
        self.unusable = Gauge(
            "perllm_telemetry_unusable_series",
            "Series that cannot be used: of another form, with impossible values, or with times in the future.",
            ["metric"],
            registry=registry,
        )
        self.age.set(math.nan)

    def watch_age(self, age_s: Callable[[], float]) -> None:
        """Let the age be asked for at every scrape."""
        self.age.set_function(age_s)

    def count_nodes(self, snapshot: Snapshot) -> None:
        """Show how many nodes have figures of which quality."""
        counts = Counter(
            (name, figure.quality) for figures in snapshot.nodes.values() for name, figure in figures.figures().items()
        )
        for name in NodeFigures().figures():
            for quality in Quality:
                self.nodes.labels(name, quality.value).set(counts[name, quality])
