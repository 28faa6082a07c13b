"""Which pods of other schedulers are compared."""

from collections.abc import Mapping, Sequence

from perllm.annotated.annotated_pod import AnnotatedPod, AnnouncementError, read_annotated_pod
from perllm.api import names
from perllm.cluster.client import Object
from perllm.cluster.shapes import as_object
from perllm.settings.operation import ShadowSettings


def read_shadowed_pod(item: Object, settings: ShadowSettings, gpu_resources: Sequence[str]) -> AnnotatedPod | None:
    """Return the pod that `item` describes if it is to be compared: by its annotations, or by its labels.

    A pod whose annotations are not understood is not compared. Never raises.
    """
    metadata = as_object(item.get("metadata"))
    annotations, labels = as_object(metadata.get("annotations")), as_object(metadata.get("labels"))
    if names.MODEL_ANNOTATION not in annotations and not _matches(labels, settings.match_labels):
        return None
    defaults = {
        "model": settings.model,
        "deadline": settings.deadline,
        "prompt_tokens": settings.prompt_tokens,
        "input_bytes": settings.input_bytes,
    }
    try:
        return read_annotated_pod(item, gpu_resources, defaults)
    except AnnouncementError:
        return None


def _matches(labels: Mapping[str, object], wanted: Mapping[str, str]) -> bool:
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())
