"""The Prometheus queries: one per metric, for all nodes at once."""

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

WINDOW = "{window}"

# Interfaces of pods, overlays, tunnels and local bridges. Some carry traffic that never leaves the node; the rest of
# theirs also passes a physical interface. OVN-Kubernetes names those of pods by 15 hexadecimal digits, Kube-OVN by 12
# and _h, Amazon's CNI by eni and 11. Of every tunnel of its tun driver (Tailscale, Nebula, ZeroTier, OpenVPN), Linux
# says that it carries 10 Mbit/s.
VIRTUAL_DEVICES = (
    "lo|veth.*|cali.*|cni.*|cilium.*|lxc.*|docker.*|podman.*|flannel.*|tun.*|br-.*|virbr.*|kube-.*|nodelocaldns|"
    "dummy.*|ifb.*|vnet.*|tap.*|[0-9a-f]{15}|[0-9a-f]+_(.*_)?h|ovn.*|ovs.*|genev.*|vxlan.*|eni[0-9a-f]{11}|"
    "gke[0-9a-f]{11}|azv.*|weave|vethwe.*|antrea.*|erspan.*|gre.*|ip6.*|sit.*|tailscale.*|nebula.*|zt.*|wg.*|"
    "wireguard.*"
)
_PHYSICAL = f'{{device!~"{VIRTUAL_DEVICES}"}}'

# On a wireless channel both directions take the same air; on a cable each has its own pair of wires.
SHARED_DEVICES = "wl.*|ath.*|wifi.*|mlan.*"
_SHARED = f'{{device=~"{SHARED_DEVICES}"}}'


def _check_window(query: str) -> str:
    if f"[{WINDOW}]" not in query:
        raise ValueError(f"must select a range with [{WINDOW}], so that samples come with their own timestamps")
    return query


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Query = Annotated[str, AfterValidator(_check_window), Field(json_schema_extra={"pattern": r"\[\{window\}\]"})]


class Queries(BaseModel):
    """The queries. They are range selectors, which return raw samples with their own timestamps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    energy: Query = Field(
        default=f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[{WINDOW}]", description="Energy counter of each GPU."
    )
    energy_unit_j: Positive = Field(default=1e-3, description="Joules per unit of the energy counter.")
    power: Query = Field(
        default=f"DCGM_FI_DEV_POWER_USAGE[{WINDOW}]",
        description="Power of each GPU. Where it has no energy counter, its energy is the integral of its power.",
    )
    power_unit_w: Positive = Field(default=1.0, description="Watts per unit of the power.")
    received: Query = Field(
        default=f"node_network_receive_bytes_total{_PHYSICAL}[{WINDOW}]",
        description="Bytes received, per network interface. The one that carries most is the uplink of its node.",
    )
    transmitted_shared: Query | None = Field(
        default=f"node_network_transmit_bytes_total{_SHARED}[{WINDOW}]",
        description="Bytes transmitted, per network interface on which both directions share the bandwidth, such as "
        "Wi-Fi; they are added to those received there. null if there are none.",
    )
    link_speed: Query = Field(
        default=f"node_network_speed_bytes{_PHYSICAL}[{WINDOW}]",
        description="Bytes per second that a network interface can carry.",
    )
    transmitted: Query | None = Field(default=None, description="No longer used; remove it.")


class MeterSettings(BaseModel):
    """What measures the energy of one part of nodes: a counter, a power gauge, or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63, description="Its name.")
    part: str = Field(
        default="gpu",
        min_length=1,
        max_length=63,
        description="What it measures. Of meters with the same part the first one that has samples of a node counts "
        "there; different parts, such as nvidia, amd and cpu, are added up. server contains all others, so either it "
        "counts or they do, whichever comes first.",
    )
    energy: Query | None = Field(default=None, description="Query for its energy counter.")
    energy_unit_j: Positive = Field(default=1.0, description="Joules per unit of the counter.")
    power: Query | None = Field(default=None, description="Query for its power, which counts where no counter does.")
    power_unit_w: Positive = Field(default=1.0, description="Watts per unit of the power.")
    device_labels: tuple[str, ...] | None = Field(
        default=None, description="Its own telemetry.device_labels; the common ones if not set."
    )
    max_device_power_w: Positive | None = Field(
        default=None, description="Its own telemetry.max_device_power_w; the common one if not set."
    )

    @model_validator(mode="after")
    def _check_queries(self) -> "MeterSettings":
        if self.energy is None and self.power is None:
            raise ValueError("must have a query for energy, power, or both")
        return self


def select_window(query: str, window_s: float, matchers: Mapping[str, str]) -> str:
    """Return the query with its window set to ``window_s`` seconds, rounded up, and for series with these labels."""
    return add_matchers(query, matchers).replace(WINDOW, f"{math.ceil(window_s)}s")


def add_matchers(query: str, matchers: Mapping[str, str]) -> str:
    """Return the query with every selector of a window restricted to series with these labels."""
    if not matchers:
        return query
    listed = ", ".join(f"{label}={_quote(value)}" for label, value in matchers.items())
    *selectors, rest = query.split(f"[{WINDOW}]")
    return f"[{WINDOW}]".join([*(_restrict(selector.rstrip(), listed) for selector in selectors), rest])


def _restrict(selector: str, matchers: str) -> str:
    if not selector.endswith("}"):
        return f"{selector}{{{matchers}}}"
    opened = selector[:-1].rstrip(" ,")
    return f"{opened}{matchers}}}" if opened.endswith("{") else f"{opened}, {matchers}}}"


def _quote(value: str) -> str:
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'
