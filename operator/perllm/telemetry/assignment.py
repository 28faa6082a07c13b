"""Assigns the series of one answer to nodes and devices, and finds those that contradict each other."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from perllm.telemetry.feeds import Feed
from perllm.telemetry.mapping import NodeMapping, find_device
from perllm.telemetry.series import Samples, Series, describe_labels
from perllm.text import clean_line

_CLUSTER_LABELS = ("cluster", "cluster_name", "cluster_id", "clusterName", "k8s_cluster", "k8s_cluster_name")


@dataclass(frozen=True, slots=True)
class DeviceSamples:
    """The samples of one device of a node, in the unit of the feed.

    Attributes:
        node: Name of the node.
        device: What distinguishes the device on its node.
        samples: Those of all its series.
        fault: Why they cannot be used, in which case there are none; empty if they can.
    """

    node: str
    device: str
    samples: Samples
    fault: str = ""


class SeriesAssignment:
    """Collects the series of one answer.

    Args:
        feed: What was queried.
        mapping: The nodes.

    Attributes:
        unmapped: Series that belong to no known node.
        faults: Why series could not be read.
    """

    def __init__(self, feed: Feed, mapping: NodeMapping) -> None:
        self.unmapped: list[Series] = []
        self.faults: list[str] = []
        self._feed = feed
        self._mapping = mapping
        self._devices: dict[tuple[str, str], list[Series]] = defaultdict(list)
        self._clusters: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def add(self, series: Series) -> None:
        """Assign one series."""
        node = None if series.fault else self._mapping.find(series.labels)
        if series.fault:
            self.faults.append(f"{describe_labels(series.labels)}: {series.fault}")
        elif node is None:
            self.unmapped.append(series)
        else:
            self._devices[node, find_device(series.labels, self._feed.device_labels)].append(series)
            for label in _CLUSTER_LABELS:
                if label in series.labels:
                    self._clusters[node][label].add(series.labels[label])

    def list_devices(self) -> Iterator[DeviceSamples]:
        """Yield the devices; of those whose series contradict each other, only why."""
        for (node, device), found in self._devices.items():
            fault = self._find_clusters(node) or self._find_conflict(found)
            if fault:
                named = clean_line(f"{describe_labels(found[0].labels)}: {fault}")
                yield DeviceSamples(node, device, (), named)
            else:
                samples = [(time_s, value * self._feed.unit) for one in found for time_s, value in one.samples]
                yield DeviceSamples(node, device, tuple(samples))

    def _find_clusters(self, node: str) -> str:
        for label, values in self._clusters.get(node, {}).items():
            if len(values) > 1:
                names = ", ".join(sorted(values)[:3])
                return f"{label} is one of {names}: nodes of several clusters have one name; set telemetry.matchers"
        return ""

    def _find_conflict(self, found: Sequence[Series]) -> str:
        if len(found) == 1:
            return ""
        values: dict[float, float] = {}
        feed = self._feed
        for one in found:
            for time_s, value in one.samples:
                known = values.setdefault(time_s, value)
                allowed = max(feed.tolerance / feed.unit, feed.relative_tolerance * max(abs(known), abs(value)))
                if abs(value - known) > allowed:
                    return f"another series of the same device has other values; {feed.remedy}"
        return ""
