"""Tasks and the pods, requests and queues by which they run."""

from math import inf
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from perllm.api.base import MAX_TTL_S
from perllm.api.quantities import DURATION_PATTERN, parse_duration_s
from perllm.settings.base import ConfigSection, NameOrNothing


def _check_ttl(text: str) -> str:
    if text != "never" and parse_duration_s(text) > MAX_TTL_S:
        raise ValueError("must be at most 720h, or never")
    return text


class TaskSettings(ConfigSection):
    """How long finished tasks are kept."""

    default_ttl: Annotated[str, AfterValidator(_check_ttl)] = Field(
        default="24h",
        pattern=f"^never$|{DURATION_PATTERN}",
        description="ttlAfterFinished of tasks without one: a finished task is deleted this long after its end, with "
        "its pods. never keeps it until a user deletes it.",
    )
    history_limit: Annotated[int, Field(ge=1)] | Literal["unlimited"] = Field(
        default=5000,
        description="Finished tasks that are kept in each namespace; if there are more, the ones that ended first are "
        "deleted. unlimited keeps all of them.",
    )

    @property
    def default_ttl_s(self) -> float:
        """Seconds that a finished task is kept; inf for no limit."""
        return inf if self.default_ttl == "never" else parse_duration_s(self.default_ttl)

    @property
    def max_history(self) -> int | None:
        """Finished tasks that are kept in each namespace; None for all."""
        return None if self.history_limit == "unlimited" else self.history_limit


class PodSettings(ConfigSection):
    """The pods of tasks."""

    named_nodes: int = Field(
        default=4,
        ge=0,
        le=10,
        description="Nodes that a pod names, the best ones with room, as required node affinity: kube-scheduler "
        "examines these only, so its speed does not depend on the size of the cluster. A pod that fits on none of "
        "them for three seconds is replaced by one that names none. 0 names none from the start, as is needed where "
        "a cluster autoscaler has to see by the pods that a new node would help.",
    )


class AgentSettings(ConfigSection):
    """The agents of nodes, which make the requests of served tasks."""

    lease_namespace: NameOrNothing = Field(
        default="",
        description="Namespace of the Leases that agents renew. Empty if there are no agents; then served tasks wait, "
        "or get runner pods.",
    )


class RunnerResources(ConfigSection):
    """The resources of a runner pod."""

    requests: dict[str, str] = Field(
        default={"cpu": "50m", "memory": "96Mi"}, description="What a runner pod requests, by resource."
    )
    limits: dict[str, str] = Field(
        default={"memory": "256Mi"},
        description="Its limits, by resource; one unit of the GPU resource of its node is added.",
    )


class RunnerSettings(ConfigSection):
    """The pods that the operator makes for served tasks whose model no agent serves."""

    server_url: str = Field(
        default="",
        pattern="^(https?://[^/?#@\\s]+(/[^?#@\\s]*)?)?$",
        max_length=256,
        description="Base URL at which the model server of each node answers, such as http://$(NODE_IP):8000/v1; "
        "$(NODE_IP) is the address of the node, and needs brackets if it is one of IPv6. Servers that need a key "
        "cannot be used. Empty for no runner pods; then served tasks wait for agents.",
    )
    image: str = Field(default="", max_length=512, description="Image with perllm-runner: that of PerLLM.")
    resources: RunnerResources = Field(default_factory=RunnerResources, description="Their resources.")

    @model_validator(mode="after")
    def _check_image(self) -> "RunnerSettings":
        if self.server_url and not self.image:
            raise ValueError("image must be set with server_url")
        return self


class AnnotatedPodSettings(ConfigSection):
    """Pods of any owner with schedulerName and annotations of their own; docs/pods.md has the annotations."""

    enabled: bool = Field(
        default=True,
        description="Whether pods with the schedulerName of this operator are placed that belong to no task. If not, "
        "they wait, and their events say so.",
    )
    annotate_results: bool = Field(
        default=False,
        description="Whether a pod that has succeeded is annotated with what it took. Its events say it in any case.",
    )


class KueueSettings(ConfigSection):
    """Quota by Kueue, for the tasks that name a queue of it."""

    enabled: bool = Field(
        default=False,
        description="Whether a task with the label kueue.x-k8s.io/queue-name waits for quota. If not, the label means "
        "nothing.",
    )
    served_resource: str = Field(
        default="perllm.io/served-tasks",
        pattern="^[-_./A-Za-z0-9]+$",
        description="Resource of which a task without a template takes one unit of its quota while it runs.",
    )
