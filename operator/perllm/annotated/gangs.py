"""Pods of gangs, which PerLLM does not place, since it chooses the node of each pod by itself.

They are known by what controllers write on them: LeaderWorkerSet, the coscheduling plugin of kube-scheduler, Volcano,
and Kubernetes itself, whose field names a PodGroup. Only the PodGroup says whether it is a gang; but pods of a gang
that are placed one by one may hold their GPUs without ever running.
"""

from collections.abc import Mapping

from perllm.cluster.shapes import as_object
from perllm.text import clean_line

GROUP_SIZE_ANNOTATION = "leaderworkerset.sigs.k8s.io/size"
"""Pods of a group of a LeaderWorkerSet; a group of one is a server like any other."""

GANG_LABELS = ("scheduling.x-k8s.io/pod-group", "pod-group.scheduling.sigs.k8s.io")
GANG_ANNOTATIONS = ("scheduling.k8s.io/group-name", GROUP_SIZE_ANNOTATION)

MAX_MARK = 300


def explain_gang(metadata: Mapping[str, object], spec: Mapping[str, object]) -> str:
    """Return why a pod with this metadata and spec is not placed; empty unless it belongs to a gang."""
    labels, annotations = (as_object(metadata.get(part)) for part in ("labels", "annotations"))
    marks = {key: labels[key] for key in GANG_LABELS if key in labels}
    marks |= {key: annotations[key] for key in GANG_ANNOTATIONS if key in annotations}
    if annotations.get(GROUP_SIZE_ANNOTATION) == "1":
        del marks[GROUP_SIZE_ANNOTATION]
    group = as_object(spec.get("schedulingGroup")).get("podGroupName")
    if group:
        marks["schedulingGroup.podGroupName"] = group
    if not marks:
        return ""
    key, value = next(iter(marks.items()))
    mark = clean_line(f"{key}={value}", MAX_MARK)
    return f"it is one of a gang ({mark}), and PerLLM places pods one by one: use Volcano, or kube-scheduler with Kueue"
