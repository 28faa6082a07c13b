"""Finds the node that a Prometheus series is about by its labels."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeMapping:
    """Finds nodes by name or address.

    Attributes:
        names: Node name by each of its identifiers: the name itself and the addresses.
        labels: Labels that may identify the node, the most trusted first.
    """

    names: Mapping[str, str]
    labels: Sequence[str]

    @classmethod
    def build(cls, nodes: Mapping[str, Collection[str]], labels: Sequence[str]) -> "NodeMapping":
        """Return the mapping for nodes given as addresses by name; names take precedence over equal addresses."""
        by_address = {address: name for name, addresses in nodes.items() for address in addresses}
        return cls({**by_address, **{name: name for name in nodes}}, labels)

    def find(self, series_labels: Mapping[str, str]) -> str | None:
        """Return the node's name, or None if no label identifies a known node."""
        for label in self.labels:
            value = series_labels.get(label)
            if value is None:
                continue
            name = self.names.get(value) or self.names.get(_strip_port(value))
            if name is not None:
                return name
        return None


def find_device(series_labels: Mapping[str, str], labels: Sequence[str]) -> str:
    """Return what distinguishes the device from others on its node.

    Exporters repeat a GPU's series for every pod that shares the GPU; these have to map to one device.
    """
    for label in labels:
        if series_labels.get(label):
            return series_labels[label]
    return ",".join(f"{key}={value}" for key, value in sorted(series_labels.items()))


def _strip_port(address: str) -> str:
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        return address
    return host.removeprefix("[").removesuffix("]")
