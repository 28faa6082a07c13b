"""The pod template of a task: PerLLM types the fields it reads itself, and leaves the rest to the API server.

Every object here is open, so that new pod fields pass. What is accepted can also be read and sent on: a list where
a map belongs cannot crash the operator.
"""

import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict

from perllm.api.base import Resource
from perllm.api.names import MAX_LABEL_LENGTH
from perllm.text import clean_line

MAX_LEVELS = 64
MAX_CONTAINERS = 64
MAX_ENTRIES = 64
"""Maximum number of labels, and of annotations."""
MAX_ANNOTATION_LENGTH = 256 * 1024
MAX_KEY_LENGTH = 253 + 1 + MAX_LABEL_LENGTH
"""Maximum length of a label or annotation key: a domain, a slash and a name."""

_SHOWN_KEY_LENGTH = 80
_KEY = re.compile(r"(?:[a-z0-9][a-z0-9.-]{0,252}/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$"
_CONTAINER_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_ANY_OBJECT = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _leave_open(schema: dict[str, Any]) -> None:
    """Let unknown fields pass, and keep the API server from adding defaults to what the user wrote."""
    schema["x-kubernetes-preserve-unknown-fields"] = True
    for field in schema["properties"].values():
        field.pop("default", None)


def _check_keys(entries: dict[str, str]) -> dict[str, str]:
    wrong = next((key for key in entries if not _KEY.fullmatch(key)), None)
    if wrong is not None:
        raise ValueError(
            f"{clean_line(wrong, _SHOWN_KEY_LENGTH)!r} is not a valid key: write for example app or example.com/app"
        )
    return entries


def _check_unset(node_name: str) -> str:
    if node_name:
        raise ValueError("must be absent: PerLLM chooses the node; nodeSelector and affinity narrow its choice")
    return node_name


_NULLABLE: JsonDict = {"nullable": True}
_Container = Annotated[str, Field(min_length=1, max_length=63, pattern=_CONTAINER_NAME)]
_LabelValue = Annotated[str, Field(max_length=MAX_LABEL_LENGTH, pattern=_LABEL_VALUE)]
_Labels = Annotated[dict[str, _LabelValue], Field(max_length=MAX_ENTRIES), AfterValidator(_check_keys)]
_AnnotationValue = Annotated[str, Field(max_length=MAX_ANNOTATION_LENGTH)]
_Annotations = Annotated[dict[str, _AnnotationValue], Field(max_length=MAX_ENTRIES), AfterValidator(_check_keys)]
_Amounts = Annotated[dict[str, str | int | float], WithJsonSchema(_ANY_OBJECT)]
_Object = Annotated[dict[str, Any], WithJsonSchema(_ANY_OBJECT)]


class _Open(Resource):
    model_config = ConfigDict(json_schema_extra=_leave_open)


class ContainerResources(_Open):
    """The resources that a container requests."""

    limits: _Amounts | None = Field(default=None, description="Limits by resource.", json_schema_extra=_NULLABLE)
    requests: _Amounts | None = Field(default=None, description="Requests by resource.", json_schema_extra=_NULLABLE)


class ContainerTemplate(_Open):
    """A container of the pod."""

    name: _Container = Field(description="Name of the container.")
    resources: ContainerResources | None = Field(
        default=None, description="Requested resources.", json_schema_extra=_NULLABLE
    )


class PodSpec(_Open):
    """The parts of the pod's spec that PerLLM reads."""

    restart_policy: Literal["Never", "OnFailure"] = Field(
        default="Never", description="Never (the default) or OnFailure; Always is not possible, since a task must end."
    )
    node_name: Annotated[str, AfterValidator(_check_unset)] | None = Field(
        default=None, description="Must be absent: PerLLM chooses the node.", json_schema_extra=_NULLABLE
    )
    node_selector: dict[str, str] | None = Field(
        default=None, description="Labels that the node must have.", json_schema_extra=_NULLABLE
    )
    tolerations: tuple[_Object, ...] | None = Field(
        default=None, description="Taints that the pod tolerates.", json_schema_extra=_NULLABLE
    )
    init_containers: Annotated[tuple[ContainerTemplate, ...], Field(max_length=MAX_CONTAINERS)] | None = Field(
        default=None, description="Containers that run before the others start.", json_schema_extra=_NULLABLE
    )
    containers: Annotated[tuple[ContainerTemplate, ...], Field(min_length=1, max_length=MAX_CONTAINERS)] = Field(
        description="The containers. The first one may write a run report as its termination message."
    )


class PodMetadata(_Open):
    """Labels and annotations of the pod."""

    labels: _Labels | None = Field(default=None, description="Labels of the pod.", json_schema_extra=_NULLABLE)
    annotations: _Annotations | None = Field(
        default=None, description="Annotations of the pod.", json_schema_extra=_NULLABLE
    )


class PodTemplate(Resource):
    """The parts of a PodTemplateSpec that PerLLM reads."""

    metadata: PodMetadata | None = Field(
        default=None, description="Labels and annotations of the pod.", json_schema_extra=_NULLABLE
    )
    spec: PodSpec = Field(description="The pod's spec. PerLLM sets schedulerName.")


def check_template(template: dict[str, Any]) -> dict[str, Any]:
    """Return the template unchanged.

    Raises:
        ValueError: PerLLM cannot read it, or cannot send it on as a pod.
    """
    if _is_deeper(template, MAX_LEVELS):
        raise ValueError(f"nested more than {MAX_LEVELS} levels deep")
    try:
        orjson.dumps(template)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"cannot be written as JSON: {error}") from error
    PodTemplate.model_validate(template)
    return template


def _is_deeper(value: dict[str, Any], levels: int) -> bool:
    """Whether objects and lists are nested more than `levels` deep; works level by level, so it cannot overflow."""
    level: list[Any] = [value]
    for _ in range(levels):
        children = (child for part in level for child in (part.values() if isinstance(part, dict) else part))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return True
