"""The configuration of the operator: one file, read once and validated as a whole."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field

from perllm.api import names
from perllm.costs.settings import CostSettings
from perllm.logs import LogSettings
from perllm.settings.base import ConfigSection, Name, NameOrNothing, check_unique
from perllm.settings.nodes import NodeSettings
from perllm.settings.operation import BillSettings, ServerSettings, ShadowSettings
from perllm.settings.policy import AdmissionSettings, FairnessSettings, PolicySettings
from perllm.settings.tasks import (
    AgentSettings,
    AnnotatedPodSettings,
    KueueSettings,
    PodSettings,
    RunnerSettings,
    TaskSettings,
)
from perllm.settings_file import read_settings
from perllm.telemetry.settings import TelemetrySettings


class Deprecation(NamedTuple):
    """Something that is configured in a form that a later version may not accept, and what to do about it."""

    finding: str
    advice: str


class Config(ConfigSection):
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
    namespaces: Annotated[tuple[Name, ...], AfterValidator(check_unique)] = Field(
        default=(),
        json_schema_extra={"uniqueItems": True},
        description="Namespaces whose tasks are served; all if empty.",
    )
    scheduler_name: str = Field(
        default=names.SCHEDULER_NAME,
        pattern="^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        description="schedulerName of the pods of tasks and annotated pods. Each operator in a cluster needs its own.",
    )
    instance: NameOrNothing = Field(
        default="",
        description="Name that distinguishes the learned state of several operators in a cluster; may be empty for "
        "one of them.",
    )
    leader_lease: NameOrNothing = Field(
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
        allow_inf_nan=False,
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
