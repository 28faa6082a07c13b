"""A scenario: its nodes, their workload and events, parsed from YAML text."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from perllm.yaml_text import YamlError, read_yaml
from perllm_lab.hardware.catalogue import CATALOGUE
from perllm_lab.hardware.demand import WorkloadSettings
from perllm_lab.hardware.events import FleetEvent, NodeChange, timeline
from perllm_lab.hardware.fields import Bandwidth, GpuCount, GpuKey, Name, PodStart, RoundTrip
from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.inventory import Inventory, Machines
from perllm_lab.hardware.link import LinkType

MAX_NODES = 10_000


class ScenarioError(ValueError):
    """A scenario file that cannot be used; the message names the field and says what is right."""


class NodeGroup(BaseModel):
    """Identical nodes: `<name>-0` ... `<name>-<count - 1>`.

    Attributes:
        name: Of the group.
        count: Number of nodes.
        tier: Their tier.
        gpu: Key in the catalogue of GPU types.
        uplink_mbps: Bandwidth of a node's uplink.
        rtt_ms: Round trip to it.
        gpus: GPUs of each node.
        joins_at: When the nodes join, as a share of the run; 0 is from the start.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    count: int = Field(ge=1, le=MAX_NODES)
    tier: Literal["edge", "cloud"]
    gpu: GpuKey
    uplink_mbps: Bandwidth
    rtt_ms: RoundTrip
    gpus: GpuCount = 1
    joins_at: float = Field(default=0.0, ge=0, lt=1)

    def node_names(self) -> list[str]:
        """Names of its nodes."""
        return [f"{self.name}-{index}" for index in range(self.count)]


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node of a scenario.

    Attributes:
        name: Of the node.
        tier: `edge` or `cloud`.
        model: The model it serves.
        gpu: Type of each of its GPUs.
        link: Its uplink.
        gpus: Number of GPUs.
        joins_at: When it joins, as a share of the run; 0 is from the start.
        resident: Whether its model is loaded when it starts.
    """

    name: str
    tier: str
    model: str
    gpu: GpuType
    link: LinkType
    gpus: int = 1
    joins_at: float = 0.0
    resident: bool = False

    @property
    def slots(self) -> int:
        """Tasks it accepts at once, on all its GPUs."""
        return self.gpu.slots * self.gpus


class Scenario(BaseModel):
    """Groups of nodes that all serve the model that tasks ask for.

    Attributes:
        name: Of the scenario.
        description: One sentence.
        model: The model that all nodes serve.
        groups: The nodes.
        inventory: More nodes, from a list of machines.
        pod_start_s: Seconds from binding to the start of a container, for all nodes instead of their GPU types'.
        resident: Whether models are loaded from the start, and after a return.
        workload: The requests.
        events: What happens to the nodes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    description: str = ""
    model: Name = "chat"
    groups: tuple[NodeGroup, ...] = ()
    inventory: Inventory | None = None
    pod_start_s: PodStart | None = None
    resident: bool = False
    workload: WorkloadSettings = WorkloadSettings()
    events: tuple[FleetEvent, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        groups = self.all_groups()
        if not groups and self.inventory is None:
            raise ValueError("groups must hold at least one group of nodes")
        names = [group.name for group in groups]
        if len(set(names)) < len(names):
            raise ValueError("two groups have the same name; node names are built from it")
        if sum(group.count for group in groups) > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} nodes")
        if groups and all(group.joins_at for group in groups):
            raise ValueError("no group is present from the start; leave out joins_at for one")
        _check_targets(self.events, groups)
        return self

    def all_groups(self) -> tuple[NodeGroup, ...]:
        """The groups of the file and those of its inventory."""
        return (*self.groups, *_inventory_groups(self.inventory))

    def nodes(self) -> list[NodeSpec]:
        """Every node, in the order of the file, including those that join later."""
        return [spec for group in self.all_groups() for spec in self._members(group)]

    def changes(self, run_s: float) -> list[NodeChange]:
        """Everything that happens to the nodes in a run of `run_s` seconds, in order of time."""
        groups = self.all_groups()
        members = {group.name: group.node_names() for group in groups}
        joins_at = {name: group.joins_at for group in groups for name in members[group.name]}
        return timeline(self.events, members, joins_at, run_s)

    def _members(self, group: NodeGroup) -> Iterator[NodeSpec]:
        gpu = CATALOGUE[group.gpu]
        if self.pod_start_s is not None:
            gpu = dataclasses.replace(gpu, pod_start_s=self.pod_start_s)
        link = LinkType(bandwidth_bps=group.uplink_mbps * 1e6, rtt_s=group.rtt_ms / 1e3)
        for name in group.node_names():
            yield NodeSpec(name, group.tier, self.model, gpu, link, group.gpus, group.joins_at, self.resident)


def parse_scenario(text: str) -> Scenario:
    """Reads a scenario from YAML text. Raises ScenarioError naming every field that is wrong."""
    try:
        values = read_yaml(text)
    except YamlError as error:
        raise ScenarioError(f"not YAML: {error}") from error
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        raise _explain(error) from error


def with_machines(scenario: Scenario, machines: Sequence[Machines]) -> Scenario:
    """Returns the scenario with these machines as its inventory.

    Raises:
        ScenarioError: the scenario has no inventory, or does not define one of the GPU models.
    """
    if scenario.inventory is None:
        raise ScenarioError(
            f"{scenario.name} takes no inventory: it has no section `inventory` that defines GPU models"
        )
    data = scenario.model_dump()
    data["inventory"]["machines"] = [each.model_dump() for each in machines]
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        raise _explain(error) from error


def _inventory_groups(inventory: Inventory | None) -> list[NodeGroup]:
    if inventory is None:
        return []
    return [
        NodeGroup(
            name=f"{_slug(machines.model)}-x{machines.gpus}",
            count=machines.count,
            gpus=machines.gpus,
            **inventory.models[machines.model].model_dump(),
        )
        for machines in inventory.machines
    ]


def _slug(model: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")


def _check_targets(events: Sequence[FleetEvent], groups: Sequence[NodeGroup]) -> None:
    group_names = {group.name for group in groups}
    node_names = {name for group in groups for name in group.node_names()}
    for number, event in enumerate(events):
        if unknown := [name for name in event.groups if name not in group_names]:
            known = ", ".join(sorted(group_names))
            raise ValueError(f"events[{number}].groups: no group {', '.join(unknown)}; known: {known}")
        if unknown := [name for name in event.nodes if name not in node_names]:
            raise ValueError(f"events[{number}].nodes: no node {', '.join(unknown)}; nodes are named <group>-<number>")


def _explain(error: ValidationError) -> ScenarioError:
    problems = "; ".join(f"{_path(item['loc'])}: {item['msg']}" for item in error.errors())
    return ScenarioError(f"not a scenario: {problems}")


def _path(location: tuple[int | str, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.lstrip(".") or "(the whole file)"
