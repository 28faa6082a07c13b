"""The nodes that quota is for: labels and tolerations of the ResourceFlavors that Kueue has assigned."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from perllm.cluster.client import Object
from perllm.cluster.shapes import as_object, as_objects, as_text
from perllm.kueue.workload import read_labels


@dataclass(frozen=True, slots=True)
class Flavor:
    """What a ResourceFlavor, or several together, ask of a pod.

    Attributes:
        name: of the ResourceFlavor; empty for several together.
        node_labels: labels that its node has to carry.
        tolerations: taints that the pod tolerates in addition to its own.
    """

    name: str = ""
    node_labels: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Object, ...] = ()

    def to_pod_spec(self) -> dict[str, Any]:
        """Return what it adds to the spec of a pod: its nodeSelector, and tolerations."""
        return {"nodeSelector": dict(self.node_labels), "tolerations": list(self.tolerations)}


ANY_NODE = Flavor()


def read_flavor(item: Object) -> Flavor:
    """Return a ResourceFlavor."""
    spec = as_object(item.get("spec"))
    name = as_text(as_object(item.get("metadata")).get("name"))
    return Flavor(name, read_labels(spec.get("nodeLabels")), tuple(as_objects(spec.get("tolerations"))))


def merge_flavors(flavors: Iterable[Flavor]) -> Flavor:
    """Return what several flavors ask of a pod together."""
    known = list(flavors)
    labels = {label for flavor in known for label in flavor.node_labels}
    return Flavor("", tuple(sorted(labels)), tuple(one for flavor in known for one in flavor.tolerations))
