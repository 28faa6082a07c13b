"""Renders a node's meters under the metric names of dcgm-exporter and node-exporter."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import NAMESPACE_DNS, uuid5

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.nodes.kubelet import HardwareReading

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Page(Collector):
    metrics: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def render_dcgm(spec: NodeSpec, sample: HardwareReading, speed: float) -> bytes:
    """Return the page of dcgm-exporter: power in W (times `speed`) and total energy in mJ."""
    labels = {
        "gpu": "0",
        "UUID": f"GPU-{uuid5(NAMESPACE_DNS, spec.name)}",
        "device": "nvidia0",
        "modelName": spec.gpu.model_name,
        "Hostname": spec.name,
    }
    power = GaugeMetricFamily("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).")
    power.add_sample(power.name, labels, sample.power_w * speed)
    # Not a CounterMetricFamily: that would add the suffix _total, which dcgm-exporter's name lacks.
    energy = Metric("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).", "unknown")
    energy.add_sample(energy.name, labels, sample.energy_j * 1000.0)
    return generate_latest(_Page((power, energy)))


def render_node(spec: NodeSpec, sample: HardwareReading, speed: float) -> bytes:
    """Return the page of node-exporter about the uplink: bytes carried, nominal bytes/s (times `speed`)."""
    labels = {"device": "eth0"}
    received = CounterMetricFamily("node_network_receive_bytes", "Network device statistic receive_bytes.")
    received.add_sample(f"{received.name}_total", labels, sample.received_bytes)
    sent = CounterMetricFamily("node_network_transmit_bytes", "Network device statistic transmit_bytes.")
    sent.add_sample(f"{sent.name}_total", labels, 0.0)
    nominal = GaugeMetricFamily("node_network_speed_bytes", "Nominal speed of the network device in bytes per second.")
    nominal.add_sample(nominal.name, labels, spec.link.bandwidth_bps / 8.0 * speed)
    return generate_latest(_Page((received, sent, nominal)))
