"""What is asked of Prometheus: one query per metric, for all nodes at once."""

import math
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

WINDOW = "{window}"

# Pods' own interfaces and overlays: their bytes pass a physical interface too, and would be counted twice.
_VIRTUAL_DEVICES = "lo|veth.*|cali.*|cni.*|cilium.*|lxc.*|docker.*|flannel.*|tunl.*|br-.*|virbr.*|kube-.*|dummy.*"
_PHYSICAL = f'{{device!~"{_VIRTUAL_DEVICES}"}}'


def _check_window(query: str) -> str:
    if f"[{WINDOW}]" not in query:
        raise ValueError(f"must select a range with [{WINDOW}], so that samples come with their own times")
    return query


Query = Annotated[str, AfterValidator(_check_window), Field(json_schema_extra={"pattern": r"\[\{window\}\]"})]


class Queries(BaseModel):
    """The queries. Range selectors, so that raw samples with their own times come back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    energy: Query = Field(
        default=f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[{WINDOW}]", description="Energy counter of every GPU."
    )
    energy_unit_j: float = Field(default=1e-3, gt=0, description="Joules of one unit of the energy counter.")
    power: Query = Field(default=f"DCGM_FI_DEV_POWER_USAGE[{WINDOW}]", description="Watts of every GPU.")
    received: Query = Field(
        default=f"node_network_receive_bytes_total{_PHYSICAL}[{WINDOW}]",
        description="Bytes received, per network interface.",
    )
    transmitted: Query = Field(
        default=f"node_network_transmit_bytes_total{_PHYSICAL}[{WINDOW}]",
        description="Bytes transmitted, per network interface.",
    )
    link_speed: Query = Field(
        default=f"node_network_speed_bytes{_PHYSICAL}[{WINDOW}]",
        description="Bytes per second that a network interface can carry.",
    )


def select_window(query: str, window_s: float) -> str:
    """Return a query for the samples of the last ``window_s`` seconds, rounded up."""
    return query.replace(WINDOW, f"{math.ceil(window_s)}s")
