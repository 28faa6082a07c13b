"""The section of the chart's values about the agents, which send served tasks to the model servers of their nodes."""

from typing import Annotated

from pydantic import Field

from chart_generator.sections import Object, Port, Probes, Section, Strings
from perllm.agent.config import Namespace
from perllm.agent.engines import MAX_SLOTS
from perllm.api.names import TAINT_KEYS
from perllm.api.node_server import MAX_SERVERS


class ApiKeySecret(Section):
    """Where the API key of a model server is, in the namespace of the release."""

    name: str = Field(min_length=1, description="Name of the Secret.")
    key: str = Field(default="api-key", min_length=1, description="Key in the Secret.")


class AgentServer(Section):
    """A model server that is not in a labelled pod, such as one on the host."""

    url: str = Field(
        max_length=256,
        pattern="^https?://[^/?#@]+/[^/?#][^?#]*$",
        description="Its address up to the version, such as http://127.0.0.1:8000/v1; the same on every node.",
    )
    api_key_secret: ApiKeySecret | None = Field(default=None, description="Where its API key is, if it needs one.")
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)] | None = Field(
        default=None, description="How many requests it processes at a time; found out by the agent if absent."
    )


class AgentValues(Section):
    """The agents: a DaemonSet on the nodes that have the tier label (config.nodes.tier_label)."""

    enabled: bool = Field(
        default=False,
        description="Whether there are agents. Without them, tasks that state a prompt instead of a pod template have "
        "no model server that is already up.",
    )
    servers: list[AgentServer] = Field(
        default=[],
        max_length=MAX_SERVERS,
        description="Model servers outside of labelled pods, with the same address on every node: url, slots, and "
        "apiKeySecret with name and key. One that does not answer is not used.",
    )
    server_namespaces: list[Namespace] = Field(
        default=[],
        json_schema_extra={"uniqueItems": True},
        description="Namespaces in which a pod with the label perllm.io/server=true is a model server, and receives "
        "prompts; that of the release when empty. List only namespaces that you trust with every prompt.",
    )
    health_port: Port = Field(
        default=8081,
        description="Port of /healthz, /readyz and /metrics, at the address of config.server.health_host.",
    )
    resources: Object = Field(
        default={"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        description="Their resources.",
    )
    probes: Probes = Field(
        default=Probes(readiness={"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 2}),
        description="Their probes, but for what they request; one that is null is left out.",
    )
    termination_grace_period_seconds: int = Field(
        default=60, ge=20, description="Seconds to stop; all but the last 10 are for requests that are in process."
    )
    max_unavailable: Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern="^[1-9][0-9]?%$|^100%$")] = Field(
        default="10%", description="How many agents, or what share of them, an upgrade may replace at a time."
    )
    priority_class_name: str = Field(default="", description="Priority class, such as system-node-critical.")
    host_network: bool = Field(
        default=False,
        description="Whether they are in the network of the host, for servers that listen on 127.0.0.1 only. The Pod "
        "Security level restricted forbids it.",
    )
    node_selector: Strings = Field(
        default={"kubernetes.io/os": "linux"}, description="Node selector, in addition to the tier label."
    )
    tolerations: list[Object] = Field(
        default=[{"key": key, "operator": "Exists"} for key in TAINT_KEYS],
        description="Tolerations; those of GPU nodes.",
    )
