"""Finds the node and the device that a Prometheus series is about by its labels."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address

# What the scrape, the exporter's pod and the pods that use a device add, and the names of the node. These may change
# while the device is the same.
_PASSING_LABELS = frozenset(
    {"__name__", "container", "endpoint", "instance", "job", "namespace", "pod", "prometheus", "prometheus_replica"}
    | {"replica", "service", "node", "Hostname", "hostname", "kubernetes_node", "node_name"}
)
_MIN_ZEROS = 8


@dataclass(frozen=True, slots=True)
class NodeMapping:
    """Finds nodes by name or address.

    Attributes:
        names: Node name by each of its identifiers: the name itself, its first part, and the addresses.
        labels: Labels that may identify the node, the most trusted first.
        shared: Addresses that several nodes have, which therefore identify none, with the names of these nodes.
    """

    names: Mapping[str, str]
    labels: Sequence[str]
    shared: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def build(cls, nodes: Mapping[str, Collection[str]], labels: Sequence[str]) -> "NodeMapping":
        """Return the mapping for nodes given as addresses by name; names take precedence over equal addresses."""
        owners: dict[str, set[str]] = defaultdict(set)
        hosts: dict[str, set[str]] = defaultdict(set)
        for name, addresses in nodes.items():
            hosts[_find_host(name)].add(name)
            for address in addresses:
                owners[_normalise(address)].add(name)
        names = {key: min(found) for found_by in (hosts, owners) for key, found in found_by.items() if len(found) == 1}
        shared = {key: sorted(found) for key, found in owners.items() if len(found) > 1 and key not in nodes}
        return cls({**names, **{name.lower(): name for name in nodes}}, labels, shared)

    def find(self, series_labels: Mapping[str, str]) -> str | None:
        """Return the node's name, or None if no label identifies a known node.

        Exporters may write names in upper case, and with or without the domain. Of two domains neither is left out:
        machines elsewhere may have the same host name. Where the target of the scrape has a label of the same name,
        Prometheus has renamed that of the series, which is about the measured node.
        """
        found = (series_labels.get(f"exported_{label}", series_labels.get(label)) for label in self.labels)
        for value in (label.lower() for label in found if label is not None):
            address = _normalise(_strip_port(value))
            for identifier in (value, address):
                name = self.names.get(identifier) if identifier else None
                if name is not None:
                    return name
            host = _find_host(address)
            name = self.names.get(host) if host else None
            if name is not None and "." not in name:
                return name
        return None


def find_device(series_labels: Mapping[str, str], labels: Sequence[str]) -> str:
    """Return what distinguishes the device from others on its node.

    Exporters repeat a GPU's series for every pod that shares the GPU; these have to map to one device. A label without
    a value, or with an identifier that is all zeros, as virtual functions have, says nothing.
    """
    for label in labels:
        value = series_labels.get(label, "")
        if value and not _is_zero(value):
            return value
    own = {key: value for key, value in series_labels.items() if key not in _PASSING_LABELS}
    return ",".join(f"{key}={value}" for key, value in sorted(own.items()))


def _is_zero(value: str) -> bool:
    return len(value) >= _MIN_ZEROS and set(value) <= {"0", "-"}


def _find_host(name: str) -> str:
    """Return the first part of a domain name; nothing if it is an address."""
    host = name.partition(".")[0].lower()
    return "" if host.isdigit() or ":" in name else host


def _normalise(address: str) -> str:
    """Return an address of IPv6 in its usual form, any other in lower case."""
    try:
        return str(IPv6Address(address)) if ":" in address else address.lower()
    except ValueError:
        return address.lower()


def _strip_port(address: str) -> str:
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        return address
    return host.removeprefix("[").removesuffix("]")
