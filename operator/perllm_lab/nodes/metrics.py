"""Renders a node's meters under the metric names of dcgm-exporter, node-exporter and vLLM."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import NAMESPACE_DNS, uuid5

from prometheus_client import Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.nodes.machine import EngineReading, HardwareReading

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_TOKEN = "vllm:time_to_first_token_seconds"
# Those of vLLM.
FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
                       40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip


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


def build_first_token_histogram() -> Histogram:
    """Return an empty histogram of times to the first token, in seconds."""
    return Histogram(
        FIRST_TOKEN, "Histogram of time to first token in seconds.", registry=None, buckets=FIRST_TOKEN_BUCKETS
    )


def render_server(spec: NodeSpec, sample: EngineReading, first_token_s: Histogram) -> bytes:
    """Return the page of the node's model server, which sees the requests of pods too, as they share its batch.

    The hardware has no law of its key-value cache: it is taken to be full where the batch is.
    """
    labels = {"model_name": spec.model, "engine": "0"}
    gauges = {
        "num_requests_running": ("Number of requests in model execution batches.", sample.running),
        "num_requests_waiting": ("Number of requests waiting to be processed.", sample.waiting),
        "kv_cache_usage_perc": ("KV-cache usage. 1 means 100 percent usage.", min(sample.running / sample.slots, 1.0)),
    }
    counters = {
        "prompt_tokens": ("Number of prefill tokens processed.", sample.prompt_tokens),
        "generation_tokens": ("Number of generation tokens processed.", sample.output_tokens),
    }
    metrics: list[Metric] = []
    for name, (help_text, value) in gauges.items():
        gauge = GaugeMetricFamily(f"vllm:{name}", help_text)
        gauge.add_sample(gauge.name, labels, value)
        metrics.append(gauge)
    for name, (help_text, value) in counters.items():
        counter = CounterMetricFamily(f"vllm:{name}", help_text)
        counter.add_sample(f"{counter.name}_total", labels, value)
        metrics.append(counter)
    for metric in first_token_s.collect():
        samples = [each._replace(labels={**labels, **each.labels}) for each in metric.samples]
        metric.samples = samples
        metrics.append(metric)
    return generate_latest(_Page(tuple(metrics)))
