"""How telemetry is set up."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from perllm.telemetry.queries import Queries


def _check_url(url: str) -> str:
    """Refuse what would be taken for another host than was meant, and told in errors with half a password."""
    try:
        parts = urlsplit(url)
        is_url = bool(parts.hostname) and parts.port != 0 and "@" not in f"{parts.path}{parts.query}{parts.fragment}"
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError("must be http(s)://HOST[:PORT][/PATH]; a user or password has / as %2F, # as %23, ? as %3F")
    return url


class TelemetrySettings(BaseModel):
    """Where the figures come from, how often they are asked for and how long they are trusted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, AfterValidator(_check_url)] = Field(
        default="http://prometheus-operated.monitoring.svc:9090",
        pattern=r"^https?://",
        description="Base URL of Prometheus or whatever answers its query API. It is in a ConfigMap: no password.",
    )
    token_file: Path | None = Field(
        default=None, description="File with a bearer token; read for every request, so it may be rotated."
    )
    ca_file: Path | None = Field(default=None, description="Certificate authority of the server; else the system's.")
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="More request headers, for example X-Scope-OrgID of a tenant. They are in a ConfigMap: no secrets.",
    )
    interval_s: float = Field(default=5.0, gt=0, description="Seconds between two polls.")
    timeout_s: float = Field(
        default=5.0, gt=0, description="Seconds that one query may take, however slowly its answer comes."
    )
    max_backoff_s: float = Field(default=60.0, gt=0, description="Longest wait between polls while they fail.")
    stale_after_s: float = Field(
        default=60.0, gt=0, description="A figure sampled longer ago than this is stale. At least two scrape intervals."
    )
    history_s: float = Field(
        default=900.0,
        gt=0,
        description="Seconds of energy counters kept; tasks that ended longer ago are not measured.",
    )
    max_device_power_w: float = Field(
        default=2000.0, gt=0, description="An energy counter that rises faster than this has jumped: a gap, not energy."
    )
    node_labels: tuple[str, ...] = Field(
        default=("node", "Hostname", "kubernetes_node", "instance"),
        min_length=1,
        description="Labels of a series that may tell its node: its name or its address; the first that does wins.",
    )
    device_labels: tuple[str, ...] = Field(
        default=("UUID", "gpu_uuid", "gpu", "device"),
        description="Labels that tell the devices of a node apart; the first present one is used.",
    )
    queries: Queries = Field(default_factory=Queries, description="What is asked.")
