"""A scenario: which nodes there are, parsed from YAML text."""

from dataclasses import dataclass
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.link import LinkType

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?$")]
MAX_NODES = 1000


class ScenarioError(ValueError):
    """A scenario file that cannot be used; the message names the field and says what is right."""


class NodeGroup(BaseModel):
    """Nodes that are alike: `<name>-0` ... `<name>-<count - 1>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    count: int = Field(ge=1, le=MAX_NODES)
    tier: Literal["edge", "cloud"]
    gpu: str
    uplink_mbps: float = Field(gt=0, allow_inf_nan=False)
    rtt_ms: float = Field(ge=0, allow_inf_nan=False)

    @field_validator("gpu")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in CATALOGUE:
            raise ValueError(f"no GPU type '{value}'; known: {', '.join(sorted(CATALOGUE))}")
        return value


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node of a scenario."""

    name: str
    tier: str
    model: str
    gpu: GpuType
    link: LinkType


class Scenario(BaseModel):
    """Groups of nodes, all of which serve the model that tasks ask for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    description: str = ""
    model: Name = "chat"
    groups: tuple[NodeGroup, ...]

    @model_validator(mode="after")
    def _distinct(self) -> "Scenario":
        if not self.groups:
            raise ValueError("groups must hold at least one group of nodes")
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise ValueError("two groups have the same name; node names are built from it")
        return self

    def nodes(self) -> list[NodeSpec]:
        """Every node, in the order of the file."""
        return [
            NodeSpec(
                name=f"{group.name}-{index}",
                tier=group.tier,
                model=self.model,
                gpu=CATALOGUE[group.gpu],
                link=LinkType(bandwidth_bps=group.uplink_mbps * 1e6, rtt_s=group.rtt_ms / 1e3),
            )
            for group in self.groups
            for index in range(group.count)
        ]


def parse_scenario(text: str) -> Scenario:
    """Reads a scenario from YAML text. Raises ScenarioError naming every field that is wrong."""
    try:
        return Scenario.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ScenarioError(f"not YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{_path(item['loc'])}: {item['msg']}" for item in error.errors())
        raise ScenarioError(f"not a scenario: {problems}") from error


def _path(location: tuple[int | str, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.lstrip(".") or "(the whole file)"
