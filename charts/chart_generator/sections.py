"""The sections of the chart's values about how PerLLM runs in Kubernetes; `config` says what it does."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Strings = dict[str, str]
Object = dict[str, Any]
"""A part of a Kubernetes object, validated by the API server."""

Digest = Annotated[str, Field(pattern="^(sha256:[0-9a-f]{64})?$")]
ObjectName = Annotated[str, Field(pattern="^([a-z]([-a-z0-9]*[a-z0-9])?)?$")]
"""Part of the names of Services, among others, which have no dots and begin with a letter."""

Percentage = Annotated[str, Field(pattern="^[0-9]{1,2}%$|^100%$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Cidr = Annotated[str, Field(pattern="^[0-9a-fA-F.:]+/[0-9]{1,3}$")]

RESTRICTED_CONTAINER: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
RESTRICTED_POD: Object = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


class Section(BaseModel):
    """A section of values: camelCase, as is usual in charts; unknown values are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Image(Section):
    """The image of PerLLM."""

    repository: str = Field(
        default="", description="Registry and name of the image. Required: it is not in a public registry yet."
    )
    tag: str = Field(default="", description="Tag; the appVersion of the chart when empty.")
    digest: Digest = Field(default="", description="Digest (sha256:...); takes precedence over the tag.")
    pull_policy: str = Field(
        default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$", description="Pull policy of the image."
    )


class ServiceAccount(Section):
    """The service account of the operator."""

    create: bool = Field(default=True, description="Whether the chart creates it.")
    name: str = Field(default="", description="Its name; the name of all objects when empty.")
    annotations: Strings = Field(default={}, description="Its annotations.")


class Probes(Section):
    """The probes of a container."""

    startup: Object = Field(default={"periodSeconds": 2, "failureThreshold": 60}, description="When it has started.")
    liveness: Object = Field(
        default={"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3}, description="When it is restarted."
    )
    readiness: Object = Field(
        default={"periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2}, description="When it is ready."
    )


class Crds(Section):
    """The resource definitions."""

    enabled: bool = Field(
        default=True, description="Whether the chart installs and upgrades them; one release per cluster does."
    )
    keep: bool = Field(
        default=True,
        description="Whether they, and with them all tasks and all learned state, outlive the release, and the pruning "
        "of Argo CD.",
    )


class AdmissionPolicy(Section):
    """The ValidatingAdmissionPolicies for authors of tasks, the operator and agents."""

    enabled: bool = Field(
        default=True,
        description="Whether only users who may create pods in a namespace may create tasks with a template there, the "
        "operator may change nothing in the status and metadata of pods but its own finalizer, and the agent of a node "
        "may write nothing that concerns another node. Without them anyone who may create tasks gets pods through the "
        "operator's rights, the operator may report any status of any pod, and an agent any status of any task.",
    )


class UninstallHook(Section):
    """The Job before an uninstallation."""

    enabled: bool = Field(
        default=True,
        description="Whether it is created. It stops the operator and releases the pods of tasks, which could not be "
        "deleted afterwards otherwise. It needs rbac.create. If off, run `perllm release` before an uninstallation.",
    )
    resources: Object = Field(
        default={"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        description="Its resources.",
    )


class TestHook(Section):
    """The Job of `helm test`."""

    enabled: bool = Field(
        default=True,
        description="Whether it is created. It runs `perllm doctor` with the operator's account and configuration, and "
        "needs no other rights.",
    )
    extra_args: list[str] = Field(
        default=[], description="Further options of `perllm doctor`, such as --no-prometheus in a cluster without one."
    )
    resources: Object = Field(
        default={"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        description="Its resources.",
    )


class Rbac(Section):
    """Roles and bindings."""

    create: bool = Field(default=True, description="Whether the chart creates them.")
    aggregate: bool = Field(
        default=True,
        description="Whether Kubernetes' own roles view, edit and admin include the resources of PerLLM. The roles "
        "edit and admin may create pods anyway, as the author of a task must.",
    )


class Global(BaseModel):
    """What Helm shares between this chart and charts that depend on it."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)

    image_registry: str = Field(
        default="", description="Registry of both images; replaces those in their repositories."
    )


class PodDisruptionBudget(Section):
    """The disruption budget; created from two replicas on."""

    enabled: bool = Field(default=True, description="Whether to create it.")
    max_unavailable: Annotated[int, Field(ge=0)] | Percentage = Field(
        default=1, description="How many pods, or what share of them, may be unavailable at a time."
    )


class Service(Section):
    """The Service of the metrics."""

    annotations: Strings = Field(default={}, description="Its annotations.")
    ip_family_policy: str = Field(
        default="",
        pattern="^(SingleStack|PreferDualStack|RequireDualStack)?$",
        description="Its IP families; the cluster's default when empty.",
    )


class ServiceMonitor(Section):
    """A ServiceMonitor of the Prometheus operator."""

    enabled: bool = Field(default=False, description="Whether to create it.")
    labels: Strings = Field(default={}, description="Additional labels, such as those that your Prometheus selects by.")
    interval: str = Field(default="30s", pattern="^[0-9]+(ms|s|m|h)$", description="Scrape interval.")
    relabelings: list[Object] = Field(default=[], description="Relabelings before the scrape.")
    metric_relabelings: list[Object] = Field(default=[], description="Relabelings after the scrape.")


class PrometheusRule(Section):
    """Alerts as a PrometheusRule of the Prometheus operator."""

    enabled: bool = Field(
        default=False,
        description="Whether to create it. Alerts select metrics by the labels namespace and service, which "
        "serviceMonitor.enabled adds; without them PerLLMDown fires. Those of agents (agent.enabled) select by "
        "namespace and job.",
    )
    labels: Strings = Field(default={}, description="Additional labels, such as those that your Prometheus selects by.")
    alert_labels: Strings = Field(default={}, description="Additional labels of every alert.")
    missed_deadlines: float = Field(
        default=0.2, gt=0, le=1, description="Share of missed deadlines in 30 minutes above which an alert fires."
    )
    extra_rules: list[Object] = Field(default=[], description="Additional rules in the same group.")


class Dashboard(Section):
    """A Grafana dashboard in a ConfigMap, found by the sidecar of Grafana's chart."""

    enabled: bool = Field(default=False, description="Whether to create it.")
    labels: Strings = Field(default={"grafana_dashboard": "1"}, description="Labels that the sidecar selects by.")
    annotations: Strings = Field(default={}, description="Its annotations, such as the folder of the dashboard.")


class PrometheusPeer(Section):
    """The address of Prometheus, for the network policy."""

    to: list[Object] = Field(default=[], description="Peers as in a NetworkPolicy; any when empty.")
    port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of its pods; that of config.telemetry.url when 0, which is wrong if the port of the Service "
        "differs from that of its pods.",
    )


class ApiServerPeer(Section):
    """The address of the API server, for the network policy."""

    cidrs: list[Cidr] = Field(default=[], description="Its addresses; any when empty.")
    ports: list[Port] = Field(
        default=[443, 6443], description="Its ports: that of the Service kubernetes, and those of its endpoints."
    )


class NetworkPolicy(Section):
    """A NetworkPolicy: ingress to the metrics; egress to the API server, Prometheus and DNS; nothing else."""

    enabled: bool = Field(default=False, description="Whether to create it.")
    ingress_from: list[Object] = Field(
        default=[], description="Peers that may read the metrics, as in a NetworkPolicy; any when empty."
    )
    dns_to: list[Object] = Field(
        default=[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
        description="Peers that serve DNS.",
    )
    api_server: ApiServerPeer = Field(default=ApiServerPeer(), description="The API server.")
    prometheus: PrometheusPeer = Field(default=PrometheusPeer(), description="Prometheus.")
    extra_egress: list[Object] = Field(default=[], description="Additional egress rules.")
