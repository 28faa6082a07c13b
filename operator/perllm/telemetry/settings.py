"""Configuration of telemetry."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from perllm.settings_file import ConfigError, none_if_empty
from perllm.telemetry.queries import MeterSettings, Positive, Queries

File = Annotated[Path | None, BeforeValidator(none_if_empty)]

URL_PATTERN = r"^https?://([^/?#]*@)?(\[[0-9a-zA-Z:.%]+\]|[^/?#@:\[\]]+)(:(0*[1-9][0-9]{0,4})?)?([/?#][^@]*)?$"
"""The same as `_check_url`, for the schema."""


def _check_url(url: str) -> str:
    """Reject URLs that would be parsed with a wrong host, and shown in errors with part of a password."""
    try:
        parts = urlsplit(url)
        is_url = bool(parts.hostname) and parts.port != 0 and "@" not in f"{parts.path}{parts.query}{parts.fragment}"
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError(
            "must be http(s)://HOST[:PORT][/PATH]; in user and password write / as %2F, # as %23, ? as %3F"
        )
    return url


def _check_names(meters: tuple[MeterSettings, ...]) -> tuple[MeterSettings, ...]:
    names = [meter.name for meter in meters]
    if len(set(names)) < len(names):
        raise ValueError("must have each name only once")
    return meters


class TelemetrySettings(BaseModel):
    """Where the figures come from, how often they are queried and how long they are trusted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, AfterValidator(_check_url)] = Field(
        default="http://prometheus-operated.monitoring.svc:9090",
        pattern=r"^https?://",
        json_schema_extra={"pattern": URL_PATTERN},
        description="Base URL of Prometheus, or of any server with its query API. It is stored in a ConfigMap, so it "
        "should contain no password.",
    )
    token_file: File = Field(
        default=None, description="File with a bearer token; read for every request, so it may be rotated."
    )
    username: str = Field(default="", description="User name for basic authentication.")
    password_file: File = Field(
        default=None, description="File with its password; read for every request, so it may be rotated."
    )
    ca_file: File = Field(default=None, description="Certificate authority of the server; the system's if not set.")
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="More request headers, for example X-Scope-OrgID of a tenant. They are stored in a ConfigMap, "
        "so they should contain no secrets.",
    )
    interval_s: Positive = Field(default=5.0, description="Seconds between two polls.")
    timeout_s: Positive = Field(
        default=5.0, description="Seconds that one query may take, until its answer is complete."
    )
    max_backoff_s: Positive = Field(default=60.0, description="Longest pause between polls while they fail.")
    stale_after_s: Positive = Field(
        default=60.0,
        description="Age in seconds from which a figure is stale. At least two scrape intervals.",
    )
    history_s: Positive = Field(
        default=900.0,
        description="Seconds for which samples of energy counters are kept; tasks that ended earlier are not measured.",
    )
    max_device_power_w: Positive = Field(
        default=2000.0,
        description="No device draws more. A counter that rises faster has jumped, and the energy in between is "
        "unknown; a power above it is ignored.",
    )
    node_labels: tuple[str, ...] = Field(
        default=("node", "Hostname", "hostname", "kubernetes_node", "instance"),
        min_length=1,
        description="Labels of a series that may hold the name or address of its node; the first match is used.",
    )
    device_labels: tuple[str, ...] = Field(
        default=("UUID", "gpu_uuid", "uuid", "gpu", "gpu_id", "device"),
        description="Labels that distinguish the measured devices of a node; the first one present is used.",
    )
    matchers: dict[Annotated[str, Field(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$")], str] = Field(
        default_factory=dict,
        description="Labels that series must have, for all queries, such as cluster where one Prometheus or Thanos has "
        "the series of several clusters.",
    )
    queries: Queries = Field(default_factory=Queries, description="Queries to Prometheus.")
    meters: Annotated[tuple[MeterSettings, ...], AfterValidator(_check_names)] = Field(
        default=(),
        description="What measures energy, the preferred ones first. If empty, there is one: queries.energy and "
        "queries.power.",
    )

    def with_url(self, url: str) -> "TelemetrySettings":
        """Return the same settings with the URL of Prometheus as seen from elsewhere, as a command is given it.

        Raises:
            ConfigError: it is not the URL of a server.
        """
        try:
            return TelemetrySettings.model_validate({**self.model_dump(), "url": url})
        except ValidationError as error:
            raise ConfigError(f"--prometheus: {error.errors(include_url=False)[0]['msg']}") from error

    @model_validator(mode="after")
    def _check_authentication(self) -> "TelemetrySettings":
        if bool(self.username) != (self.password_file is not None):
            raise ValueError("username and password_file must be set together")
        if self.username and self.token_file is not None:
            raise ValueError("must have either a token_file, or username and password_file")
        return self
