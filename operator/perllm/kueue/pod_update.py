"""What Kueue adds to the pod of a task: where its quota is, and what admission checks ask for.

A check that provisions nodes says so by an annotation, for example, by which the cluster autoscaler knows the pod.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perllm.cluster.client import Object
from perllm.cluster.shapes import as_object, as_objects

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PodUpdate:
    """What a ResourceFlavor or an admission check adds to a pod, or several of them together.

    Attributes:
        node_labels: labels that its node has to carry.
        tolerations: taints that the pod tolerates in addition to its own.
        labels: of the pod.
        annotations: of the pod.
    """

    node_labels: Labels = ()
    tolerations: tuple[Object, ...] = ()
    labels: Labels = ()
    annotations: Labels = ()

    def to_pod_spec(self) -> dict[str, Any]:
        """Return what it adds to the spec of a pod: its nodeSelector, and tolerations."""
        return {"nodeSelector": dict(self.node_labels), "tolerations": list(self.tolerations)}


NO_UPDATE = PodUpdate()


def read_update(item: Object, node_labels: str = "nodeSelector") -> PodUpdate:
    """Return what an object of Kueue adds to a pod; its field `node_labels` names the labels of the node."""
    return PodUpdate(
        _read_labels(item.get(node_labels)),
        tuple(as_objects(item.get("tolerations"))),
        _read_labels(item.get("labels")),
        _read_labels(item.get("annotations")),
    )


def merge_updates(updates: Iterable[PodUpdate]) -> PodUpdate:
    """Return what several add to a pod together; of one label or annotation with several values, the last counts."""
    known = list(updates)
    return PodUpdate(
        _merge(update.node_labels for update in known),
        tuple(one for update in known for one in update.tolerations),
        _merge(update.labels for update in known),
        _merge(update.annotations for update in known),
    )


def _read_labels(values: object) -> Labels:
    return _sort({key: value for key, value in as_object(values).items() if isinstance(value, str)})


def _merge(several: Iterable[Labels]) -> Labels:
    return _sort({key: value for labels in several for key, value in labels})


def _sort(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))
