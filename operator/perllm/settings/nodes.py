"""Nodes, their GPUs and their uplinks."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from perllm.api import names
from perllm.api.task import Tier
from perllm.cluster.devices import DeviceSelection
from perllm.cluster.node import NodeLabels
from perllm.settings.base import ConfigSection, Positive
from perllm.settings_file import none_if_empty


def _check_every_tier(values: dict[Tier, float]) -> dict[Tier, float]:
    if len(values) < len(Tier):
        raise ValueError(f"must have a number for each of {', '.join(Tier)}")
    return values


PerTier = Annotated[dict[Tier, Positive], AfterValidator(_check_every_tier)]


class DeviceSettings(ConfigSection):
    """Devices that are GPUs, of a driver of dynamic resource allocation."""

    device_class: str = Field(min_length=1, max_length=253, description="DeviceClass by which pods claim them.")
    driver: str = Field(min_length=1, max_length=63, description="Driver that publishes them.")
    attributes: dict[str, str] = Field(
        default={},
        description="Values that attributes of these devices have, as in the selector of the DeviceClass; booleans are "
        "true or false.",
    )
    type_attribute: str = Field(
        default="productName", description="Attribute with the GPU type, for nodes without gpu_type_label."
    )
    extended_resource: str = Field(
        default="",
        pattern="^([-_.A-Za-z0-9]+/[-_.A-Za-z0-9]+)?$",
        description="Extended resource by which pods may ask for them too: extendedResourceName of the DeviceClass "
        "(Kubernetes 1.36). No node may have it from a device plugin as well.",
    )


class NodeSettings(ConfigSection):
    """How nodes are recognised, and what is assumed about unmeasured ones."""

    tier_label: str = Field(default=names.TIER_LABEL, description="Node label whose value is edge or cloud.")
    gpu_type_label: str = Field(default=names.GPU_TYPE_LABEL, description="Node label whose value is the GPU type.")
    gpu_resources: tuple[Annotated[str, Field(pattern="^[-_./*A-Za-z0-9]+$")], ...] = Field(
        default=names.GPU_RESOURCES,
        min_length=1,
        description="Allocatable resources of which a task takes one unit or more. Their quantities add up to the "
        "number of tasks that a node can run at a time. * stands for any characters.",
    )
    gpu_resource: Annotated[str | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Former setting for a single resource, which replaces gpu_resources if it is set."
    )
    slots_label: str = Field(
        default=names.SLOTS_LABEL,
        description="Node label whose value is the number of tasks that a node can run at a time, if it has none of "
        "gpu_resources because there is no device plugin.",
    )
    devices: tuple[DeviceSettings, ...] = Field(
        default=(),
        description="Devices of which each is a slot, for GPUs that are allocated by ResourceClaims. Needs Kubernetes "
        "1.34. Each DeviceClass once; a device that matches several counts for the first one.",
    )
    default_bandwidth_mbit_s: PerTier = Field(
        default={Tier.EDGE: 100.0, Tier.CLOUD: 300.0},
        description="Uplink bandwidth of nodes without a fresh figure. The paper's test bed has 100 and 300 Mbit/s.",
    )
    transmission_microjoule_per_bit: PerTier = Field(
        default={Tier.EDGE: 0.3, Tier.CLOUD: 1.0},
        description="Energy of moving a bit to a node, which is not measured. Estimates for access networks (edge) "
        "and wide-area networks (cloud).",
    )

    @property
    def resources(self) -> tuple[str, ...]:
        """The resources of which tasks take units."""
        own = self.gpu_resources if self.gpu_resource is None else (self.gpu_resource,)
        return (*own, *(one.extended_resource for one in self.devices if one.extended_resource))

    @property
    def selections(self) -> tuple[DeviceSelection, ...]:
        """The devices that are slots."""
        return tuple(DeviceSelection(**one.model_dump()) for one in self.devices)

    def to_labels(self) -> NodeLabels:
        """Return which labels, resources and devices describe a node."""
        return NodeLabels(
            self.tier_label, self.gpu_type_label, self.resources, self.slots_label, devices=self.selections
        )
