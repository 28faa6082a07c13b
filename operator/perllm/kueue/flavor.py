"""A ResourceFlavor: the kind of nodes that quota is of."""

from dataclasses import dataclass

from perllm.cluster.client import Object
from perllm.cluster.shapes import as_object, as_text
from perllm.kueue.pod_update import NO_UPDATE, PodUpdate, read_update


@dataclass(frozen=True, slots=True)
class Flavor:
    """A ResourceFlavor.

    Attributes:
        name: its name.
        update: what it adds to the pods whose quota is of it: the labels of its nodes, and tolerations.
    """

    name: str
    update: PodUpdate = NO_UPDATE


def read_flavor(item: Object) -> Flavor:
    """Return a ResourceFlavor."""
    name = as_text(as_object(item.get("metadata")).get("name"))
    return Flavor(name, read_update(as_object(item.get("spec")), node_labels="nodeLabels"))
