"""The configuration of the operator: one file, read once and validated as a whole."""

from dataclasses import asdict, fields
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from perllm.api import names
from perllm.api.base import MAX_INPUT_BYTES, MAX_TOKENS, MAX_TTL_S, Deadline
from perllm.api.quantities import DURATION_PATTERN, parse_duration_s
from perllm.api.task import Tier
from perllm.cluster.devices import DeviceSelection
from perllm.cluster.node import NodeLabels
from perllm.costs.settings import CostSettings
from perllm.logs import LogSettings
from perllm.policy.contextual import CsUcb, CsUcbParameters
from perllm.policy.problem import Policy
from perllm.policy.table import CsUcbTable, CsUcbTableParameters
from perllm.settings_file import read_settings
from perllm.telemetry.settings import TelemetrySettings


def _check_every_tier(values: dict[Tier, float]) -> dict[Tier, float]:
    if len(values) < len(Tier):
        raise ValueError(f"must have a number for each of {', '.join(Tier)}")
    return values


_Parameters = TypeVar("_Parameters", CsUcbParameters, CsUcbTableParameters)


def _check_parameters(parameters: _Parameters) -> _Parameters:
    wrong = [name for name, value in asdict(parameters).items() if not (isfinite(value) and value >= 0)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} must be a finite number, and at least 0")
    return parameters


def _check_ttl(text: str) -> str:
    if text != "never" and parse_duration_s(text) > MAX_TTL_S:
        raise ValueError("must be at most 720h, or never")
    return text


_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_PerTier = Annotated[dict[Tier, _Positive], AfterValidator(_check_every_tier)]


def _check_unique(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError("must have each name only once")
    return values


_Name = Annotated[str, Field(pattern=f"^{_DNS_LABEL}$", max_length=63)]
_NameOrNothing = Annotated[str, Field(pattern=f"^({_DNS_LABEL})?$", max_length=63)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PolicySettings(_Section):
    """The policy, and the parameters of each one; policy/contextual.py and policy/table.py have the equations."""

    name: Literal["cs-ucb", "cs-ucb-table", "net-hits"] = Field(
        default="cs-ucb",
        description="The policy: cs-ucb, or cs-ucb-table, the paper's, with one mean per arm. net-hits is the former "
        "name of cs-ucb.",
    )
    cs_ucb: Annotated[CsUcbParameters, AfterValidator(_check_parameters)] = Field(
        default=CsUcbParameters(), description="Parameters of cs-ucb."
    )
    cs_ucb_table: Annotated[CsUcbTableParameters, AfterValidator(_check_parameters)] = Field(
        default=CsUcbTableParameters(),
        description="Parameters of cs-ucb-table. The values used in the paper are unknown.",
    )
    net_hits: Annotated[CsUcbParameters, AfterValidator(_check_parameters)] | None = Field(
        default=None, description="Former name of cs_ucb, which it replaces if it is set."
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_moved(cls, values: Any) -> Any:
        """Explain where the parameters of the paper's policy are now: earlier versions had them in other sections."""
        section = values.get("cs_ucb") if isinstance(values, dict) else None
        places = [place for place in (values, section) if isinstance(place, dict)]
        moved = [field.name for field in fields(CsUcbTableParameters) if any(field.name in place for place in places)]
        if moved:
            raise ValueError(
                f"{', '.join(moved)} must be in the section policy.cs_ucb_table: the policy that was called cs-ucb is "
                "cs-ucb-table now"
            )
        return values

    def build(self) -> Policy:
        """Return a policy that has learned nothing yet."""
        if self.name == "cs-ucb-table":
            return CsUcbTable(self.cs_ucb_table)
        return CsUcb(self.net_hits or self.cs_ucb)


class AdmissionSettings(_Section):
    """When tasks with `onInfeasible: Reject` are rejected."""

    min_hit_chance: float = Field(
        default=0.5,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="A task with onInfeasible: Reject is rejected if no node gives it at least this chance to be in "
        "time.",
    )
    probe_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the rejected tasks of a model that run nevertheless while no other task of the model "
        "does, to test whether predictions still hold. Eligible are tasks that harm no other task and are predicted "
        "to take at most four times the time left. 0 turns it off.",
    )


class TaskSettings(_Section):
    """How long finished tasks are kept."""

    default_ttl: Annotated[str, AfterValidator(_check_ttl)] = Field(
        default="24h",
        pattern=f"^never$|{DURATION_PATTERN}",
        description="ttlAfterFinished of tasks without one: a finished task is deleted this long after its end, with "
        "its pods. never keeps it until somebody deletes it.",
    )
    history_limit: Annotated[int, Field(ge=1)] | Literal["unlimited"] = Field(
        default=5000,
        description="Finished tasks that are kept in each namespace; if there are more, the ones that ended first are "
        "deleted. unlimited keeps all of them.",
    )

    @property
    def default_ttl_s(self) -> float:
        """Seconds that a finished task is kept; inf for ever."""
        return inf if self.default_ttl == "never" else parse_duration_s(self.default_ttl)

    @property
    def max_history(self) -> int | None:
        """Finished tasks that are kept in each namespace; None for all."""
        return None if self.history_limit == "unlimited" else self.history_limit


class PodSettings(_Section):
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


class DeviceSettings(_Section):
    """Devices that are GPUs, of a driver of dynamic resource allocation."""

    device_class: str = Field(min_length=1, max_length=253, description="DeviceClass by which pods claim them.")
    driver: str = Field(min_length=1, max_length=63, description="Driver that publishes them.")
    attributes: dict[str, str] = Field(
        default={},
        description="Values that attributes of these devices have, as in the selector of the DeviceClass; booleans are "
        "true or false.",
    )
    type_attribute: str = Field(
        default="productName", description="Attribute with the GPU type, for nodes without gpu_type_label."
    )


class NodeSettings(_Section):
    """How nodes are recognised, and what is assumed about unmeasured ones."""

    tier_label: str = Field(default=names.TIER_LABEL, description="Node label whose value is edge or cloud.")
    gpu_type_label: str = Field(default=names.GPU_TYPE_LABEL, description="Node label whose value is the GPU type.")
    gpu_resources: tuple[Annotated[str, Field(pattern="^[-_./*A-Za-z0-9]+$")], ...] = Field(
        default=names.GPU_RESOURCES,
        min_length=1,
        description="Allocatable resources of which a task takes one unit or more. Their quantities add up to the "
        "number of tasks that a node can run at a time. * stands for any characters.",
    )
    gpu_resource: str | None = Field(
        default=None, description="Former setting for a single resource, which replaces gpu_resources if it is set."
    )
    slots_label: str = Field(
        default=names.SLOTS_LABEL,
        description="Node label whose value is the number of tasks that a node can run at a time, if it has none of "
        "gpu_resources because there is no device plugin.",
    )
    devices: tuple[DeviceSettings, ...] = Field(
        default=(),
        description="Devices of which each is a slot, for GPUs that are allocated by ResourceClaims. Needs Kubernetes "
        "1.34. Each DeviceClass once; a device that matches several counts for the first one.",
    )
    default_bandwidth_mbit_s: _PerTier = Field(
        default={Tier.EDGE: 100.0, Tier.CLOUD: 300.0},
        description="Uplink bandwidth of nodes without a fresh figure. The paper's test bed has 100 and 300 Mbit/s.",
    )
    transmission_microjoule_per_bit: _PerTier = Field(
        default={Tier.EDGE: 0.3, Tier.CLOUD: 1.0},
        description="Energy of moving a bit to a node, which is not measured. Estimates for access networks (edge) "
        "and wide-area networks (cloud).",
    )

    @property
    def resources(self) -> tuple[str, ...]:
        """The resources of which tasks take units."""
        return self.gpu_resources if self.gpu_resource is None else (self.gpu_resource,)

    @property
    def device_classes(self) -> tuple[str, ...]:
        """The DeviceClasses whose devices are slots."""
        return tuple(one.device_class for one in self.devices)

    def to_labels(self) -> NodeLabels:
        """Return which labels, resources and devices describe a node."""
        devices = tuple(DeviceSelection(**one.model_dump()) for one in self.devices)
        return NodeLabels(self.tier_label, self.gpu_type_label, self.resources, self.slots_label, devices=devices)


class FairnessSettings(_Section):
    """How namespaces share the nodes; scheduling/shares.py has the equations."""

    weights: dict[_Name, _Positive] = Field(
        default={},
        description="Weight of each namespace. While several wait for the same nodes, one of weight 2 gets twice as "
        "many GPU seconds as one of weight 1, the default.",
    )


class AgentSettings(_Section):
    """The agents of nodes, which make the requests of served tasks."""

    lease_namespace: _NameOrNothing = Field(
        default="",
        description="Namespace of the Leases that agents renew. Empty if there are no agents; then served tasks wait, "
        "or get runner pods.",
    )


class RunnerResources(_Section):
    """The resources of a runner pod."""

    requests: dict[str, str] = Field(
        default={"cpu": "50m", "memory": "96Mi"}, description="What a runner pod requests, by resource."
    )
    limits: dict[str, str] = Field(
        default={"memory": "256Mi"},
        description="Its limits, by resource; one unit of the GPU resource of its node is added.",
    )


class RunnerSettings(_Section):
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


class AnnotatedPodSettings(_Section):
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


class KueueSettings(_Section):
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


class ShadowSettings(_Section):
    """Which pods of other schedulers shadow mode compares: those that name their model in the annotation
    perllm.io/model, and those that carry all of these labels.
    """

    match_labels: dict[str, str] = Field(
        default={}, description="Labels of pods that are compared even without annotations. None if empty."
    )
    model: str = Field(default="", max_length=253, description="Model of those pods.")
    deadline: Deadline = Field(
        default="60s", pattern=DURATION_PATTERN, description="Deadline of pods without perllm.io/deadline."
    )
    prompt_tokens: int = Field(
        default=1000, ge=1, le=MAX_TOKENS, description="Tokens of the prompts of pods without perllm.io/prompt-tokens."
    )
    input_bytes: int = Field(
        default=0, ge=0, le=MAX_INPUT_BYTES, description="Bytes of the input of pods without perllm.io/input-bytes."
    )

    @model_validator(mode="after")
    def _check_model(self) -> "ShadowSettings":
        if self.match_labels and not self.model:
            raise ValueError("model must be set with match_labels")
        return self


class ServerSettings(_Section):
    """The addresses that the operator listens on."""

    extender_port: int = Field(default=10261, ge=0, le=65535, description="Loopback port that kube-scheduler calls.")
    health_host: str = Field(default="0.0.0.0", description="Address of /healthz, /readyz and /metrics.")
    health_port: int = Field(default=8080, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics.")


class BillSettings(_Section):
    """The bill of energy."""

    label: str = Field(
        default="",
        max_length=317,
        description="Label of tasks, such as team, by whose values energy, tokens and deadlines are counted, as "
        "they are by namespace. None if empty.",
    )


class Deprecation(NamedTuple):
    """Something that is configured in a form that a later version may not accept, and what to do about it."""

    finding: str
    advice: str


class Config(_Section):
    """The configuration of the operator."""

    mode: Literal["active", "shadow"] = Field(
        default="active",
        description="active, or shadow: place nothing, and compare with what other schedulers do. See docs/shadow.md.",
    )
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings, description="Prometheus.")
    policy: PolicySettings = Field(default_factory=PolicySettings, description="The policy.")
    admission: AdmissionSettings = Field(default_factory=AdmissionSettings, description="When tasks are rejected.")
    costs: CostSettings = Field(
        default_factory=CostSettings, description="What energy costs, in money and carbon, and what is minimised."
    )
    tasks: TaskSettings = Field(default_factory=TaskSettings, description="How long finished tasks are kept.")
    pods: PodSettings = Field(default_factory=PodSettings, description="The pods of tasks.")
    nodes: NodeSettings = Field(default_factory=NodeSettings, description="The nodes.")
    fairness: FairnessSettings = Field(default_factory=FairnessSettings, description="Sharing between namespaces.")
    agents: AgentSettings = Field(default_factory=AgentSettings, description="The agents of nodes.")
    runner: RunnerSettings = Field(
        default_factory=RunnerSettings, description="Pods for served tasks whose model no agent serves."
    )
    annotated_pods: AnnotatedPodSettings = Field(
        default_factory=AnnotatedPodSettings, description="Pods that belong to no task."
    )
    kueue: KueueSettings = Field(default_factory=KueueSettings, description="Quota by Kueue.")
    shadow: ShadowSettings = Field(default_factory=ShadowSettings, description="Shadow mode.")
    bill: BillSettings = Field(default_factory=BillSettings, description="The bill of energy.")
    server: ServerSettings = Field(default_factory=ServerSettings, description="Ports.")
    log: LogSettings = Field(default_factory=LogSettings, description="Logging.")
    namespaces: Annotated[tuple[_Name, ...], AfterValidator(_check_unique)] = Field(
        default=(),
        json_schema_extra={"uniqueItems": True},
        description="Namespaces whose tasks are served; all if empty.",
    )
    scheduler_name: str = Field(
        default=names.SCHEDULER_NAME,
        pattern="^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        description="schedulerName of the pods of tasks and annotated pods. Each operator in a cluster needs its own.",
    )
    instance: _NameOrNothing = Field(
        default="",
        description="Name that distinguishes the learned state of several operators in a cluster; may be empty for "
        "one of them.",
    )
    leader_lease: _NameOrNothing = Field(
        default="",
        description="Lease by which the kube-schedulers of several replicas elect a leader. The operator in its pod "
        "is active, the others are standby. Empty for a single replica.",
    )
    start_timeout_s: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds within which a container must start once a pod has a node; if none does, the pod is "
        "replaced. Should be longer than the largest image takes to pull.",
    )
    away_patience_s: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds for which a task waits for a pod that is being deleted on a node that is not ready, from "
        "when the node stopped answering or last reported about the pod; after that the task runs again elsewhere. "
        "For edge nodes that work on while they are disconnected. 0: at once, which is 300 s after the node stopped "
        "answering, unless Kubernetes is configured to delete pods earlier or later.",
    )
    energy_patience_s: float = Field(
        default=90.0,
        gt=0,
        description="Seconds to wait, after a run, for samples that cover it. The default is three scrape intervals "
        "of 30 s.",
    )

    @property
    def deprecations(self) -> tuple[Deprecation, ...]:
        """What is configured in a form that a later version may not accept."""
        is_configured = {
            Deprecation("config.policy.name is net-hits, which is called cs-ucb now", "rename it"): (
                self.policy.name == "net-hits"
            ),
            Deprecation("config.policy.net_hits is called config.policy.cs_ucb now", "rename it"): (
                self.policy.net_hits is not None
            ),
            Deprecation("config.nodes.gpu_resource is one of config.nodes.gpu_resources now", "list it there"): (
                self.nodes.gpu_resource is not None
            ),
            Deprecation("config.telemetry.queries.transmitted is no longer used", "remove it"): (
                self.telemetry.queries.transmitted is not None
            ),
        }
        return tuple(deprecation for deprecation, holds in is_configured.items() if holds)


def load_config(file: Path | None) -> Config:
    """Read the configuration; without a file, return the defaults.

    Raises:
        ConfigError: the file cannot be read, or it is invalid.
    """
    return read_settings(Config, file)
