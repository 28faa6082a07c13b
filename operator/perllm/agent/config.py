"""The configuration of the agent: one file for all nodes, read once and validated as a whole."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from yarl import URL

from perllm.agent.engines import MAX_SLOTS
from perllm.api.node_server import MAX_SERVERS
from perllm.logs import LogSettings
from perllm.settings_file import read_settings

Namespace = Annotated[str, Field(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


def _check_url(text: str) -> str:
    try:
        url = URL(text)
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or url.path.strip("/") == "":
        raise ValueError("must be the URL of a server up to the version, such as http://127.0.0.1:8000/v1")
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        raise ValueError("must end with the path and contain no password, since it is shown; for keys use api_key_file")
    return text.rstrip("/")


class _AgentSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelServerSettings(_AgentSection):
    """A model server at an address that is the same on all nodes of the agent."""

    url: Annotated[str, Field(max_length=256), AfterValidator(_check_url)] = Field(
        description="Where requests are sent to, up to the version, such as http://127.0.0.1:8000/v1."
    )
    api_key_file: Path | None = Field(
        default=None, description="File with the server's API key, from a Secret that only the agent mounts."
    )
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)] | None = Field(
        default=None,
        description="How many requests it processes at a time. If absent, the number that the server reports; if it "
        "reports none, what is learned from its behaviour, with no limit in the agent until then.",
    )


class AgentConfig(_AgentSection):
    """The configuration of the agent."""

    servers: Annotated[tuple[ModelServerSettings, ...], Field(max_length=MAX_SERVERS)] = Field(
        default=(), description="Model servers at known addresses, such as those on the host."
    )
    server_namespaces: tuple[Namespace, ...] = Field(
        default=(),
        description="Namespaces in which pods with the label perllm.io/server=true are model servers. Anyone who "
        "can create pods there receives prompts.",
    )
    namespaces: tuple[Namespace, ...] = Field(
        default=(), description="Namespaces whose tasks are served; all if empty."
    )
    probe_interval_s: float = Field(
        default=2.0, gt=0, allow_inf_nan=False, description="Seconds between two looks at a model server."
    )
    grace_s: float = Field(
        default=20.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that requests in process have to end when the agent is stopped. The others are repeated "
        "when it is back.",
    )
    lease_namespace: Namespace = Field(
        default="perllm-system", description="Namespace of the Lease by which the agent shows that it is there."
    )
    health_host: str = Field(default="0.0.0.0", description="Address of /healthz, /readyz and /metrics.")
    health_port: int = Field(default=8081, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics.")
    log: LogSettings = Field(default_factory=LogSettings, description="Logging.")


def load_agent_config(file: Path | None) -> AgentConfig:
    """Read the configuration; without a file, return the defaults.

    Raises:
        ConfigError: the file cannot be read, or it is invalid.
    """
    return read_settings(AgentConfig, file)
