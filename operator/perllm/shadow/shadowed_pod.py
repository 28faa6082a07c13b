"""A pod of another scheduler, and what PerLLM is to know of the task in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perllm.api import names
from perllm.api.base import MAX_INPUT_BYTES, Deadline, Tokens
from perllm.api.quantities import parse_duration_s
from perllm.api.task import Tier
from perllm.cluster.client import Object
from perllm.cluster.pod import Pod, read_other_pod
from perllm.cluster.shapes import as_object
from perllm.config import ShadowSettings
from perllm.placement.demand import PodDemand, read_demand
from perllm.placement.request import PlacementRequest


class Announcement(BaseModel):
    """What the annotations of a pod say about its task; values are text, as in all annotations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=253)]
    deadline: Deadline
    prompt_tokens: Annotated[Tokens, Field(ge=1)]
    output_tokens: Annotated[Tokens, Field(ge=1)] | None = None
    input_bytes: Annotated[int, Field(ge=0, le=MAX_INPUT_BYTES)]


@dataclass(frozen=True, slots=True)
class ShadowedPod:
    """A pod of another scheduler that is compared.

    Attributes:
        pod: the pod, as if it were the only attempt at a task of its own.
        announcement: what it says about its task.
        demand: what it asks of its node.
    """

    pod: Pod
    announcement: Announcement
    demand: PodDemand

    def to_request(self, arrived_s: float) -> PlacementRequest:
        """Return what the task would ask of placement, had it arrived at this Unix time."""
        asked, deadline_s = self.announcement, parse_duration_s(self.announcement.deadline)
        return PlacementRequest(
            task_id=self.pod.uid,
            model=asked.model,
            prompt_tokens=asked.prompt_tokens,
            output_tokens=asked.output_tokens,
            input_bytes=asked.input_bytes,
            tiers=frozenset(Tier),
            due_s=arrived_s + deadline_s,
            deadline_s=deadline_s,
            namespace=self.pod.key.partition("/")[0],
            demand=self.demand,
        )


def read_shadowed_pod(item: Object, settings: ShadowSettings, gpu_resources: Sequence[str]) -> ShadowedPod | None:
    """Return the pod that `item` describes if it is to be compared: by its annotations, or by its labels.

    A pod whose annotations are not understood is not compared. Never raises.
    """
    metadata = as_object(item.get("metadata"))
    annotations, labels = as_object(metadata.get("annotations")), as_object(metadata.get("labels"))
    if names.MODEL_ANNOTATION not in annotations and not _matches(labels, settings.match_labels):
        return None
    pod, announcement = read_other_pod(item), _read_announcement(annotations, settings)
    if pod is None or announcement is None:
        return None
    return ShadowedPod(pod, announcement, read_demand(item.get("spec"), gpu_resources))


def _matches(labels: Mapping[str, object], wanted: Mapping[str, str]) -> bool:
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


def _read_announcement(annotations: Mapping[str, object], settings: ShadowSettings) -> Announcement | None:
    try:
        return Announcement.model_validate(
            {
                "model": annotations.get(names.MODEL_ANNOTATION, settings.model),
                "deadline": annotations.get(names.DEADLINE_ANNOTATION, settings.deadline),
                "prompt_tokens": annotations.get(names.PROMPT_TOKENS_ANNOTATION, settings.prompt_tokens),
                "output_tokens": annotations.get(names.OUTPUT_TOKENS_ANNOTATION),
                "input_bytes": annotations.get(names.INPUT_BYTES_ANNOTATION, settings.input_bytes),
            }
        )
    except ValidationError:
        return None
