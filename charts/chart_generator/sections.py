"""The sections of the chart's values that say how things run in Kubernetes; what they do is said in `config`."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Strings = dict[str, str]
Object = dict[str, Any]
"""A part of a Kubernetes object: the API server knows best whether it is right."""

Digest = Annotated[str, Field(pattern="^(sha256:[0-9a-f]{64})?$")]
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
    """A section of values: camelCase, as charts have it; what is not described is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Image(Section):
    """The image of PerLLM."""

    repository: str = Field(
        default="", description="Registry and name of the image. Required: no public registry has it yet."
    )
    tag: str = Field(default="", description="Tag; the appVersion of the chart when empty.")
    digest: Digest = Field(default="", description="Digest (sha256:...), which wins over the tag.")
    pull_policy: str = Field(
        default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$", description="When the image is pulled."
    )


class SchedulerImage(Image):
    """The image of kube-scheduler."""

    repository: str = Field(
        default="registry.k8s.io/kube-scheduler", min_length=1, description="Registry and name of the image."
    )
    tag: str = Field(
        default="",
        description="Tag; the version of the cluster when empty. May be one minor version behind it, never ahead.",
    )


class ServiceAccount(Section):
    """The account of the operator."""

    create: bool = Field(default=True, description="Whether the chart makes it.")
    name: str = Field(default="", description="Its name; that of the release when empty.")
    annotations: Strings = Field(default={}, description="Its annotations.")


class SchedulerServiceAccount(Section):
    """The account of kube-scheduler."""

    create: bool = Field(
        default=True,
        description="Whether kube-scheduler gets an account of its own, so that the operator has none of its rights. A "
        "pod has one account, so the token of the second comes from a Secret and does not expire. When false, the "
        "account of the operator, with tokens that do, holds the rights of both.",
    )
    annotations: Strings = Field(default={}, description="Its annotations.")


class SchedulerValues(Section):
    """The private kube-scheduler in the operator's pod. It serves pods whose schedulerName is config.scheduler_name."""

    image: SchedulerImage = Field(default=SchedulerImage(), description="Its image.")
    service_account: SchedulerServiceAccount = Field(default=SchedulerServiceAccount(), description="Its account.")
    port: Port = Field(default=10259, description="HTTPS port of its probes and metrics.")
    resources: Object = Field(
        default={"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        description="Its resources.",
    )
    extra_args: list[str] = Field(default=[], description="More arguments, such as --v=2.")
    extra_env: list[Object] = Field(default=[], description="More environment variables.")


class Crds(Section):
    """The resource definitions."""

    enabled: bool = Field(
        default=True, description="Whether the chart installs and upgrades them; one release of a cluster does."
    )
    keep: bool = Field(
        default=True,
        description="Whether they, and with them all tasks and everything learned, outlive the release.",
    )


class AdmissionPolicy(Section):
    """The ValidatingAdmissionPolicy about authors of tasks."""

    enabled: bool = Field(
        default=True,
        description="Whether only those may create a task in a namespace who may create pods there. Without it whoever "
        "may create tasks gets pods by the rights of the operator.",
    )


class Rbac(Section):
    """Roles and bindings."""

    create: bool = Field(default=True, description="Whether the chart makes them.")
    aggregate: bool = Field(
        default=True,
        description="Whether Kubernetes' own roles view, edit and admin include the resources of PerLLM. The roles "
        "edit and admin may create pods anyway, as the author of a task has to.",
    )


class Global(BaseModel):
    """What Helm shares with charts that depend on this one, or that it is a dependency of."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)

    image_registry: str = Field(
        default="", description="Registry of both images, in place of those that their repositories begin with."
    )


class PodDisruptionBudget(Section):
    """The disruption budget; it exists from two replicas on."""

    enabled: bool = Field(default=True, description="Whether there is one.")
    max_unavailable: int | str = Field(default=1, description="How many pods, or what share, may be down at a time.")


class Service(Section):
    """The service of the metrics."""

    annotations: Strings = Field(default={}, description="Its annotations.")
    ip_family_policy: str = Field(
        default="",
        pattern="^(SingleStack|PreferDualStack|RequireDualStack)?$",
        description="Its IP families; the cluster's default when empty.",
    )


class ServiceMonitor(Section):
    """A ServiceMonitor of the Prometheus operator."""

    enabled: bool = Field(default=False, description="Whether there is one.")
    labels: Strings = Field(default={}, description="More labels, such as those by which a Prometheus selects it.")
    interval: str = Field(default="30s", pattern="^[0-9]+(ms|s|m|h)$", description="Scrape interval.")
    relabelings: list[Object] = Field(default=[], description="Relabelling before the scrape.")
    metric_relabelings: list[Object] = Field(default=[], description="Relabelling after it.")


class PrometheusRule(Section):
    """Alerts as a PrometheusRule of the Prometheus operator."""

    enabled: bool = Field(default=False, description="Whether there is one.")
    labels: Strings = Field(default={}, description="More labels, such as those by which a Prometheus selects it.")
    alert_labels: Strings = Field(default={}, description="More labels of every alert.")
    missed_deadlines: float = Field(
        default=0.2, gt=0, le=1, description="Share of missed deadlines within 30 minutes above which an alert fires."
    )
    extra_rules: list[Object] = Field(default=[], description="More rules of the same group.")


class Dashboard(Section):
    """A Grafana dashboard in a ConfigMap, found by the sidecar of Grafana's chart."""

    enabled: bool = Field(default=False, description="Whether there is one.")
    labels: Strings = Field(default={"grafana_dashboard": "1"}, description="Labels that the sidecar looks for.")
    annotations: Strings = Field(default={}, description="Annotations, such as the folder of the dashboard.")


class PrometheusPeer(Section):
    """Where Prometheus is, for the network policy."""

    to: list[Object] = Field(default=[], description="Peers as in a NetworkPolicy; everywhere when empty.")
    port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of its pods. That of config.telemetry.url when 0, which is wrong where a service has another "
        "port than its pods.",
    )


class ApiServerPeer(Section):
    """Where the API server is, for the network policy."""

    cidrs: list[Cidr] = Field(default=[], description="Its addresses; everywhere when empty.")
    ports: list[Port] = Field(default=[443, 6443], description="Its ports, before and behind the service kubernetes.")


class NetworkPolicy(Section):
    """A network policy: in to the metrics; out to the API server, Prometheus and DNS; nothing else."""

    enabled: bool = Field(default=False, description="Whether there is one.")
    ingress_from: list[Object] = Field(
        default=[], description="Who may read the metrics, peers as in a NetworkPolicy; everybody when empty."
    )
    dns_to: list[Object] = Field(
        default=[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
        description="Where DNS is.",
    )
    api_server: ApiServerPeer = Field(default=ApiServerPeer(), description="The API server.")
    prometheus: PrometheusPeer = Field(default=PrometheusPeer(), description="Prometheus.")
    extra_egress: list[Object] = Field(default=[], description="More egress rules.")
