"""A pod that belongs to no task, and what its annotations say about the work in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from perllm.annotated.gangs import explain_gang
from perllm.api import names
from perllm.api.base import Deadline, InputBytes, ModelName, Tokens
from perllm.api.quantities import parse_duration_s, parse_quantity
from perllm.api.task import Tier
from perllm.cluster.client import Object
from perllm.cluster.pod import Pod, read_other_pod
from perllm.cluster.shapes import as_object, as_objects
from perllm.energy.bill import Owner
from perllm.placement.claims import ClaimSizes
from perllm.placement.demand import PodDemand, read_demand
from perllm.placement.request import PlacementRequest
from perllm.text import clean_line

USUAL_PROMPT_TOKENS = 1000

NO_DEADLINE_S = 30 * 24 * 3600.0
"""Stands for no deadline: every node is in time by then, so harm to others and energy alone decide."""

MAX_PROBLEM = 500

MAX_TIERS_TEXT = 64
"""Characters that name tiers: to reject each of 100,000 wrong ones would take seconds."""

_ANNOTATIONS = {
    "model": names.MODEL_ANNOTATION,
    "deadline": names.DEADLINE_ANNOTATION,
    "prompt_tokens": names.PROMPT_TOKENS_ANNOTATION,
    "output_tokens": names.OUTPUT_TOKENS_ANNOTATION,
    "input_bytes": names.INPUT_BYTES_ANNOTATION,
    "tiers": names.TIERS_ANNOTATION,
}


def _split(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    if len(text) > MAX_TIERS_TEXT:
        raise ValueError("must be edge, cloud, or both with a comma")
    return [part.strip() for part in text.split(",")]


class Announcement(BaseModel):
    """What the annotations of a pod say about its work; values are text, as in all annotations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelName
    deadline: Deadline | None = None
    prompt_tokens: Annotated[Tokens, Field(ge=1)] = USUAL_PROMPT_TOKENS
    output_tokens: Annotated[Tokens, Field(ge=1)] | None = None
    input_bytes: InputBytes = 0
    tiers: Annotated[frozenset[Tier], BeforeValidator(_split)] = frozenset(Tier)


class AnnouncementError(ValueError):
    """A pod cannot be placed as it is described; the message names the annotation or the label that is the reason."""


@dataclass(frozen=True, slots=True)
class AnnotatedPod:
    """A pod that belongs to no task.

    Attributes:
        pod: the pod, as if it were the only attempt at a task of its own.
        announcement: what it says about its work.
        demand: what it asks of its node.
        is_lasting: whether it does not end by itself, as the servers of a Deployment.
        is_gated: whether kube-scheduler may not place it yet.
    """

    pod: Pod
    announcement: Announcement
    demand: PodDemand
    is_lasting: bool = False
    is_gated: bool = False

    @property
    def created_s(self) -> float:
        """Unix time of its creation, in whole seconds; 0 if it is not known."""
        return self.pod.created_s or 0.0

    @property
    def deadline_s(self) -> float | None:
        """Seconds from its creation to its completion; None without a deadline, which a lasting pod never has."""
        deadline = self.announcement.deadline
        return None if deadline is None or self.is_lasting else parse_duration_s(deadline)

    @property
    def owner(self) -> Owner:
        """Whose it is, for the bill, which divides by labels of tasks only."""
        return Owner(self.pod.namespace)

    def to_request(self, arrived_s: float) -> PlacementRequest:
        """Return what its work would ask of placement, had it arrived at this Unix time."""
        asked, deadline_s = self.announcement, self.deadline_s or NO_DEADLINE_S
        return PlacementRequest(
            task_id=self.pod.uid,
            model=asked.model,
            prompt_tokens=asked.prompt_tokens,
            output_tokens=asked.output_tokens,
            input_bytes=parse_quantity(asked.input_bytes),
            tiers=asked.tiers,
            due_s=arrived_s + deadline_s,
            deadline_s=deadline_s,
            namespace=self.pod.namespace,
            demand=self.demand,
        )


@dataclass(frozen=True, slots=True)
class UnreadablePod:
    """A pod that belongs to no task, and that cannot be placed as it is described.

    Attributes:
        pod: the pod.
        problem: which annotation is wrong or missing, or which label is the reason.
    """

    pod: Pod
    problem: str


def read_own_pod(
    item: Object, gpu_resources: Sequence[str], claims: ClaimSizes | None = None
) -> AnnotatedPod | UnreadablePod | None:
    """Return a pod that PerLLM is to place; None if it is a task's. Never raises."""
    try:
        return read_annotated_pod(item, gpu_resources, claims=claims)
    except AnnouncementError as error:
        pod = read_other_pod(item)
        return None if pod is None else UnreadablePod(pod, str(error))


def read_annotated_pod(
    item: Object,
    gpu_resources: Sequence[str],
    defaults: Mapping[str, object] | None = None,
    *,
    claims: ClaimSizes | None = None,
) -> AnnotatedPod | None:
    """Return the pod that `item` describes; None if it is a task's, or not a pod.

    Args:
        item: the pod.
        gpu_resources: resources that slots are units of.
        defaults: what counts where an annotation is missing, by the field of the announcement.
        claims: the devices that pods ask for by claims; none if devices are no slots.

    Raises:
        AnnouncementError: an annotation is missing or not understood, or it is a pod of a gang.
    """
    pod = read_other_pod(item)
    if pod is None:
        return None
    metadata, spec = as_object(item.get("metadata")), as_object(item.get("spec"))
    problem = explain_gang(metadata, spec)
    if problem:
        raise AnnouncementError(problem)
    announcement = _read_announcement(as_object(metadata.get("annotations")), defaults or {})
    claimed = (claims or ClaimSizes()).find(pod.namespace, spec, item.get("status"))
    return AnnotatedPod(
        pod,
        announcement,
        read_demand(spec, gpu_resources, claimed),
        is_lasting=spec.get("restartPolicy", "Always") == "Always",
        is_gated=bool(as_objects(spec.get("schedulingGates"))),
    )


def _read_announcement(annotations: Mapping[str, object], defaults: Mapping[str, object]) -> Announcement:
    said = {field: annotations[key] for field, key in _ANNOTATIONS.items() if key in annotations}
    if "model" not in {**defaults, **said}:
        raise AnnouncementError(f"annotation {names.MODEL_ANNOTATION} is missing")
    try:
        return Announcement.model_validate({**defaults, **said})
    except ValidationError as error:
        raise AnnouncementError(_describe(error)) from error


def _describe(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    said = [(_ANNOTATIONS[str(one["loc"][0])], one["msg"].removeprefix("Value error, ")) for one in details]
    problems = dict.fromkeys(f"annotation {key}: {words}" for key, words in said)
    return clean_line("; ".join(problems), MAX_PROBLEM)
