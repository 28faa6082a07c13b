"""Renders a node's meters under the metric names of dcgm-exporter, node-exporter and vLLM."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import NAMESPACE_DNS, uuid5

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.nodes.machine import EngineReading, HardwareReading

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Page(Collector):
    metrics: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


@dataclass(slots=True)
class FirstTokens:
    """The times to the first token of the requests to a model server, in wall seconds from their last byte."""

    count: int = 0
    sum_s: float = 0.0

    def add(self, first_token_s: float) -> None:
        """Count one request."""
        self.count += 1
        self.sum_s += first_token_s


def render_exporters(spec: NodeSpec, sample: HardwareReading, speed: float) -> bytes:
    """Return one page with the metrics of dcgm-exporter and node-exporter; two scrapes would cost twice as much."""
    return generate_latest(_Page((*_list_dcgm(spec, sample, speed), *_list_node(spec, sample, speed))))


def _list_dcgm(spec: NodeSpec, sample: HardwareReading, speed: float) -> tuple[Metric, ...]:
    """Return the metrics of dcgm-exporter: power in W (times `speed`) and total energy in mJ."""
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
    return power, energy


def _list_node(spec: NodeSpec, sample: HardwareReading, speed: float) -> tuple[Metric, ...]:
    """Return the metrics of node-exporter about the uplink: bytes carried, nominal bytes/s (times `speed`)."""
    labels = {"device": "eth0"}
    received = CounterMetricFamily("node_network_receive_bytes", "Network device statistic receive_bytes.")
    received.add_sample(f"{received.name}_total", labels, sample.received_bytes)
    sent = CounterMetricFamily("node_network_transmit_bytes", "Network device statistic transmit_bytes.")
    sent.add_sample(f"{sent.name}_total", labels, 0.0)
    nominal = GaugeMetricFamily("node_network_speed_bytes", "Nominal speed of the network device in bytes per second.")
    nominal.add_sample(nominal.name, labels, spec.link.bandwidth_bps / 8.0 * speed)
    return received, sent, nominal


def render_server(spec: NodeSpec, sample: EngineReading, first_tokens: FirstTokens) -> bytes:
    """Return the page of the node's model server, which sees the requests of pods too, as they share its batch.

    The hardware has no law of its key-value cache: it is taken to be as full as the batch.
    """
    labels = {"model_name": spec.model, "engine": "0"}
    running = GaugeMetricFamily("vllm:num_requests_running", "Number of requests in model execution batches.")
    running.add_sample(running.name, labels, sample.running)
    waiting = GaugeMetricFamily("vllm:num_requests_waiting", "Number of requests waiting to be processed.")
    waiting.add_sample(waiting.name, labels, sample.waiting)
    cache = GaugeMetricFamily("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
    cache.add_sample(cache.name, labels, min(sample.running / spec.slots, 1.0))
    prompt = CounterMetricFamily("vllm:prompt_tokens", "Number of prefill tokens processed.")
    prompt.add_sample(f"{prompt.name}_total", labels, sample.prompt_tokens)
    output = CounterMetricFamily("vllm:generation_tokens", "Number of generation tokens processed.")
    output.add_sample(f"{output.name}_total", labels, sample.output_tokens)
    first = HistogramMetricFamily(
        "vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", labels=tuple(labels)
    )
    first.add_metric(tuple(labels.values()), [("+Inf", first_tokens.count)], first_tokens.sum_s)
    return generate_latest(_Page((running, waiting, cache, prompt, output, first)))
