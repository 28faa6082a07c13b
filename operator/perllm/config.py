"""How an operator is set up. One file, read once, validated as a whole; every field explains itself."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from perllm.api import names
from perllm.api.task import Tier
from perllm.policy.cs_ucb import CsUcbParameters
from perllm.telemetry.settings import TelemetrySettings


class ConfigError(Exception):
    """The configuration cannot be used; the message names the field and what is expected."""


def _check_every_tier(values: dict[Tier, float]) -> dict[Tier, float]:
    if len(values) < len(Tier):
        raise ValueError(f"must hold a number for each of {', '.join(Tier)}")
    return values


_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_PerTier = Annotated[dict[Tier, _Positive], AfterValidator(_check_every_tier)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_POLICY = CsUcbParameters()


class PolicySettings(_Section):
    """CS-UCB (policy/cs_ucb.py has the equations). The paper's own values are not known; these are ours."""

    constraint_weight: float = Field(
        default=_POLICY.constraint_weight,
        ge=0,
        description="lambda: what slack is worth beside energy. 0.5 lets energy lead, slack break ties.",
    )
    exploration: float = Field(
        default=_POLICY.exploration,
        ge=0,
        description="delta: width of the confidence bound. Mean rewards differ by some tenths.",
    )
    penalty_weight: float = Field(
        default=_POLICY.penalty_weight,
        ge=0,
        description="theta: price of a predicted violation when no node is feasible.",
    )
    reference_output_j: float = Field(
        default=_POLICY.reference_output_j,
        gt=0,
        description="Joules per token written that count as 1: the upper end of published batch-1 figures for models "
        "of 6 to 9 billion parameters.",
    )
    reference_prompt_j: float = Field(default=_POLICY.reference_prompt_j, gt=0, description="The same per token read.")

    def to_parameters(self) -> CsUcbParameters:
        """Return the policy's own parameters."""
        return CsUcbParameters(**self.model_dump())


class NodeSettings(_Section):
    """How nodes are recognised, and what is assumed where nothing is measured."""

    tier_label: str = Field(default=names.TIER_LABEL, description="Label whose value is edge or cloud.")
    gpu_type_label: str = Field(default=names.GPU_TYPE_LABEL, description="Label whose value is the GPU type.")
    gpu_resource: str = Field(
        default=names.GPU_RESOURCE, description="Allocatable resource that counts the tasks a node can run at a time."
    )
    default_bandwidth_mbit_s: _PerTier = Field(
        default={Tier.EDGE: 100.0, Tier.CLOUD: 300.0},
        description="Uplink of nodes without a fresh bandwidth figure. The paper's test bed has 100 and 300 Mbit/s.",
    )
    transmission_microjoule_per_bit: _PerTier = Field(
        default={Tier.EDGE: 0.3, Tier.CLOUD: 1.0},
        description="Energy of moving a bit to a node, which no meter sees. Estimated: access hops, or a wide area.",
    )


class ServerSettings(_Section):
    """What the operator listens on."""

    extender_port: int = Field(default=10261, ge=0, le=65535, description="Loopback port that kube-scheduler calls.")
    health_host: str = Field(default="0.0.0.0", description="Address of /healthz, /readyz and /metrics.")
    health_port: int = Field(default=8080, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics.")


class LogSettings(_Section):
    """How the operator logs."""

    format: str = Field(default="text", pattern="^(text|json)$", description="text for people, json for machines.")
    level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level that is logged."
    )


class Config(_Section):
    """Everything that can be set."""

    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings, description="Prometheus.")
    policy: PolicySettings = Field(default_factory=PolicySettings, description="CS-UCB.")
    nodes: NodeSettings = Field(default_factory=NodeSettings, description="The nodes.")
    server: ServerSettings = Field(default_factory=ServerSettings, description="Ports.")
    log: LogSettings = Field(default_factory=LogSettings, description="Logging.")
    namespaces: tuple[str, ...] = Field(default=(), description="Namespaces whose tasks are served; all when empty.")
    scheduler_name: str = Field(default=names.SCHEDULER_NAME, description="schedulerName of the pods of tasks.")
    energy_patience_s: float = Field(
        default=90.0,
        gt=0,
        description="Seconds to wait, after a run, for samples that cover it. Three times a scrape interval of 30 s.",
    )


def load_config(file: Path | None) -> Config:
    """Read the configuration; without a file all defaults hold.

    Raises:
        ConfigError: the file cannot be read or a field in it is wrong.
    """
    if file is None:
        return Config()
    try:
        values: Any = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {file} cannot be read: {error}") from error
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        lines = "\n".join(f"  {'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in problems)
        raise ConfigError(f"configuration file {file} is wrong:\n{lines}") from error
