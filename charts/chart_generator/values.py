"""The chart's values: the model of values.yaml, values.schema.json and the README."""

from pydantic import Field

from chart_generator.agent import AgentValues
from chart_generator.scheduler import SchedulerValues
from chart_generator.sections import (
    RESTRICTED_CONTAINER,
    RESTRICTED_POD,
    AdmissionPolicy,
    Crds,
    Dashboard,
    Global,
    Image,
    NetworkPolicy,
    Object,
    ObjectName,
    PodDisruptionBudget,
    Probes,
    PrometheusRule,
    Rbac,
    Section,
    Service,
    ServiceAccount,
    ServiceMonitor,
    Strings,
    TestHook,
    UninstallHook,
)
from perllm.config import Config
from perllm.settings.base import NameOrNothing


class Values(Section):
    """Values of the chart perllm."""

    replica_count: int = Field(
        default=1,
        ge=1,
        description="Number of pods. Their kube-schedulers elect a leader by a Lease; the operator in the leader's pod "
        "is active, the others are on standby.",
    )
    image: Image = Field(default=Image(), description="The image of PerLLM.")
    image_pull_secrets: list[Object] = Field(default=[], description="Secrets for pulling both images.")
    name_override: ObjectName = Field(default="", description="Replaces the chart's name in names and labels.")
    fullname_override: ObjectName = Field(default="", description="Replaces the name of all objects.")
    namespace_override: NameOrNothing = Field(
        default="", description="Namespace of all objects; that of the release when empty. It must exist."
    )
    config: Config = Field(
        default=Config(),
        description="The operator's configuration, with its own names and defaults. An empty leader_lease means the "
        "name of all objects; an empty agents.lease_namespace that of the release, if agent.enabled; an empty "
        "runner.image the image of PerLLM.",
    )
    scheduler: SchedulerValues = Field(
        default=SchedulerValues(), description="The private kube-scheduler that queries the operator, in the same pod."
    )
    agent: AgentValues = Field(
        default=AgentValues(),
        description="The agents of the nodes, which send tasks that state a prompt to the model servers of their node. "
        "The tier label (config.nodes.tier_label) selects the nodes.",
    )
    crds: Crds = Field(default=Crds(), description="The resource definitions.")
    admission_policy: AdmissionPolicy = Field(
        default=AdmissionPolicy(),
        description="The ValidatingAdmissionPolicies for authors of tasks, the operator and agents.",
    )
    uninstall_hook: UninstallHook = Field(
        default=UninstallHook(), description="The Job that `helm uninstall` runs before it deletes anything."
    )
    test_hook: TestHook = Field(default=TestHook(), description="The Job that `helm test` runs.")
    rbac: Rbac = Field(default=Rbac(), description="Roles and bindings.")
    service_account: ServiceAccount = Field(
        default=ServiceAccount(), description="The service account of the operator."
    )
    resources: Object = Field(
        default={"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "1Gi"}},
        description="Resources of the operator. A CPU limit would only delay decisions.",
    )
    probes: Probes = Field(
        default=Probes(),
        description="Probes of the operator, but for what they request; one that is null is left out.",
    )
    strategy: Object = Field(
        default={},
        description="Update strategy of the Deployment; when empty, a new pod is ready before an old one ends. It is "
        "Recreate in any case while the Lease changes its name.",
    )
    pod_security_context: Object = Field(default=RESTRICTED_POD, description="Security context of the pod.")
    security_context: Object = Field(default=RESTRICTED_CONTAINER, description="Security context of both containers.")
    termination_grace_period_seconds: int = Field(
        default=30, ge=25, description="Seconds to flush all state: usually one, up to 25 if the API server is slow."
    )
    priority_class_name: str = Field(
        default="", description="Priority class, such as system-cluster-critical: no task starts without PerLLM."
    )
    node_selector: Strings = Field(default={"kubernetes.io/os": "linux"}, description="Node selector of the pods.")
    tolerations: list[Object] = Field(default=[], description="Tolerations of the pods.")
    affinity: Object = Field(default={}, description="Affinity of the pods.")
    topology_spread_constraints: list[Object] = Field(
        default=[], description="Topology spread of the pods; if possible over nodes and zones when empty."
    )
    dns_policy: str = Field(default="", description="DNS policy of all pods; the cluster's default when empty.")
    dns_config: Object = Field(default={}, description="DNS configuration of all pods.")
    pod_disruption_budget: PodDisruptionBudget = Field(
        default=PodDisruptionBudget(), description="Disruption budget; created from two replicas on."
    )
    common_labels: Strings = Field(
        default={},
        description="Labels of all objects, but for app.kubernetes.io/name and app.kubernetes.io/instance, by which "
        "pods are selected.",
    )
    deployment_annotations: Strings = Field(default={}, description="Annotations of the Deployment.")
    pod_labels: Strings = Field(default={}, description="Labels of the pods, but for the same two.")
    pod_annotations: Strings = Field(default={}, description="Annotations of the pods.")
    extra_env: list[Object] = Field(default=[], description="Additional environment variables of the operator.")
    prometheus_secret: str = Field(
        default="",
        description="Secret in the namespace of all objects, for access to Prometheus. Each of its keys is a file in "
        "/etc/perllm-prometheus, which config.telemetry can name: a token, a password, a certificate authority.",
    )
    extra_volumes: list[Object] = Field(default=[], description="Additional volumes of the pods.")
    extra_volume_mounts: list[Object] = Field(
        default=[], description="Where they are mounted in the operator's container."
    )
    extra_containers: list[Object] = Field(default=[], description="Additional containers of the pods.")
    extra_objects: list[Object] = Field(
        default=[], description="Additional objects, in which templates are rendered, such as {{ .Release.Name }}."
    )
    service: Service = Field(default=Service(), description="The Service of the metrics.")
    service_monitor: ServiceMonitor = Field(
        default=ServiceMonitor(), description="ServiceMonitor of the Prometheus operator."
    )
    prometheus_rule: PrometheusRule = Field(
        default=PrometheusRule(), description="Alerts, as a PrometheusRule of the Prometheus operator."
    )
    dashboard: Dashboard = Field(
        default=Dashboard(), description="Grafana dashboard in a ConfigMap, found by the sidecar of Grafana's chart."
    )
    network_policy: NetworkPolicy = Field(
        default=NetworkPolicy(),
        description="NetworkPolicy: ingress to the metrics; egress to API server, Prometheus and DNS; nothing else. "
        "For agents: egress to API server, DNS and model servers.",
    )
    enabled: bool = Field(
        default=True, description="Not used here: serves as the condition in charts that depend on this one."
    )
    global_: Global = Field(
        default=Global(), alias="global", description="What Helm shares between this chart and others."
    )
