"""What a pod requests of a simulated node."""

from dataclasses import dataclass
from typing import Any

from perllm.api.names import GPU_RESOURCE, MODEL_ANNOTATION, MODEL_LABEL, TASK_LABEL, to_label_value
from perllm.api.quantities import parse_quantity
from perllm_lab.hardware.node import Job
from perllm_lab.workload.names import (
    CONTAINER,
    FAIL_ANNOTATION,
    INPUT_BYTES_ANNOTATION,
    MESSAGE_ANNOTATION,
    OUTPUT_TOKENS_ANNOTATION,
    PROMPT_TOKENS_ANNOTATION,
)

Object = dict[str, Any]

# A pod without its size counts as the median request of the Azure conversation trace of 2023.
DEFAULT_SIZE = {PROMPT_TOKENS_ANNOTATION: 1020, OUTPUT_TOKENS_ANNOTATION: 129, INPUT_BYTES_ANNOTATION: 4080}


class PodError(Exception):
    """A pod that a node refuses. `reason` becomes the pod's reason; the message says what is right."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BoundContainer:
    """A container of a pod, as far as its status needs it."""

    name: str
    image: str


@dataclass(frozen=True, slots=True)
class BoundPod:
    """A pod bound to a simulated node.

    `message` is what its container leaves instead of a run report, if it errs.
    """

    uid: str
    namespace: str
    name: str
    task: str
    created: str
    containers: tuple[BoundContainer, ...]
    slots: int
    fails: bool
    message: str | None

    @property
    def path(self) -> str:
        """API path of the pod."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def reporter(self) -> str:
        """Name of the container that writes the run report."""
        names = [container.name for container in self.containers]
        return CONTAINER if CONTAINER in names else names[0]


def read_pod(item: Object) -> BoundPod:
    """Read a pod from the API server's object."""
    metadata, spec = item["metadata"], item["spec"]
    return BoundPod(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        task=metadata.get("labels", {}).get(TASK_LABEL, ""),
        created=metadata["creationTimestamp"],
        containers=tuple(BoundContainer(each["name"], each["image"]) for each in spec["containers"]),
        slots=sum(_slots(container) for container in spec["containers"]),
        fails=metadata.get("annotations", {}).get(FAIL_ANNOTATION) == "true",
        message=metadata.get("annotations", {}).get(MESSAGE_ANNOTATION),
    )


def read_job(item: Object, served_model: str) -> Job:
    """Read the work of a pod from its annotations.

    Args:
        item: The pod.
        served_model: Of the node's model server, which a pod without a model of its own asks.

    Raises:
        PodError: an annotation is not a whole number.
    """
    metadata = item["metadata"]
    annotations = metadata.get("annotations", {})
    model = metadata.get("labels", {}).get(MODEL_LABEL) or annotations.get(MODEL_ANNOTATION) or served_model
    return Job(
        key=metadata["uid"],
        prompt_tokens=_number(annotations, PROMPT_TOKENS_ANNOTATION),
        output_tokens=_number(annotations, OUTPUT_TOKENS_ANNOTATION),
        input_bytes=_number(annotations, INPUT_BYTES_ANNOTATION),
        model=to_label_value(model),
    )


def _slots(container: Object) -> int:
    resources = container.get("resources", {})
    amount = resources.get("limits", {}).get(GPU_RESOURCE) or resources.get("requests", {}).get(GPU_RESOURCE) or 0
    return parse_quantity(amount)


def _number(annotations: dict[str, str], name: str) -> int:
    text = annotations.get(name)
    if text is None:
        return DEFAULT_SIZE[name]
    if not text.isdecimal():
        raise PodError("CreateContainerConfigError", f"annotation {name} must be a whole number, not {text!r}")
    return int(text)
