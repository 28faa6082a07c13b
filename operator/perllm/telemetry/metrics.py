"""Metrics about telemetry itself."""

import math
from collections import Counter
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as CounterMetric

from perllm.telemetry.snapshot import NodeFigures, Quality, Snapshot

_QUERY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class TelemetryMetrics:
    """The metrics ``perllm_telemetry_*``, in the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.up = Gauge("perllm_telemetry_up", "1 if the last poll of Prometheus succeeded.", registry=registry)
        self.age = Gauge(
            "perllm_telemetry_age_seconds",
            "Time since the last successful poll; NaN if there was none.",
            registry=registry,
        )
        self.query_time = Histogram(
            "perllm_telemetry_query_seconds",
            "Duration of a query to Prometheus.",
            ["metric"],
            buckets=_QUERY_BUCKETS_S,
            registry=registry,
        )
        self.failures = CounterMetric(
            "perllm_telemetry_failures_total", "Polls of Prometheus that failed.", registry=registry
        )
        self.nodes = Gauge(
            "perllm_telemetry_nodes", "Nodes by figure and its quality.", ["figure", "quality"], registry=registry
        )
        self.unmapped = Gauge(
            "perllm_telemetry_unmapped_series",
            "Series whose labels identify no known GPU node; normal for metrics that other nodes have as well.",
            ["metric"],
            registry=registry,
        )
        self.unusable = Gauge(
            "perllm_telemetry_unusable_series",
            "Series that cannot be used: malformed, with impossible values, or with timestamps in the future.",
            ["metric"],
            registry=registry,
        )
        self.age.set(math.nan)

    def watch_age(self, age_s: Callable[[], float]) -> None:
        """Compute the age at every scrape."""
        self.age.set_function(age_s)

    def count_nodes(self, snapshot: Snapshot) -> None:
        """Set the number of nodes for each figure and quality."""
        counts = Counter(
            (name, figure.quality) for figures in snapshot.nodes.values() for name, figure in figures.figures().items()
        )
        for name in NodeFigures().figures():
            for quality in Quality:
                self.nodes.labels(name, quality.value).set(counts[name, quality])
