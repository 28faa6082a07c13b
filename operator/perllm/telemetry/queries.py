"""The Prometheus queries: one per metric, for all nodes at once."""

import math
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

WINDOW = "{window}"

# Interfaces of pods and overlays: their traffic also passes a physical interface and would be counted twice.
_VIRTUAL_DEVICES = "lo|veth.*|cali.*|cni.*|cilium.*|lxc.*|docker.*|flannel.*|tunl.*|br-.*|virbr.*|kube-.*|dummy.*"
_PHYSICAL = f'{{device!~"{_VIRTUAL_DEVICES}"}}'


def _check_window(query: str) -> str:
    if f"[{WINDOW}]" not in query:
        raise ValueError(f"must select a range with [{WINDOW}], so that samples come with their own timestamps")
    return query


Query = Annotated[str, AfterValidator(_check_window), Field(json_schema_extra={"pattern": r"\[\{window\}\]"})]


class Queries(BaseModel):
    """The queries. They are range selectors, which return raw samples with their own timestamps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    energy: Query = Field(
        default=f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[{WINDOW}]", description="Energy counter of each GPU."
    )
    energy_unit_j: float = Field(default=1e-3, gt=0, description="Joules per unit of the energy counter.")
    power: Query = Field(default=f"DCGM_FI_DEV_POWER_USAGE[{WINDOW}]", description="Power of each GPU in watts.")
    received: Query = Field(
        default=f"node_network_receive_bytes_total{_PHYSICAL}[{WINDOW}]",
        description="Bytes received, per network interface.",
    )

    link_speed: Query = Field(
        default=f"node_network_speed_bytes{_PHYSICAL}[{WINDOW}]",
        description="Bytes per second that a network interface can carry.",
    )
    transmitted: Query | None = Field(default=None, description="No longer used; remove it.")


def select_window(query: str, window_s: float) -> str:
    """Return the query with its window set to ``window_s`` seconds, rounded up."""
    return query.replace(WINDOW, f"{math.ceil(window_s)}s")
