import pytest
from prometheus_client.parser import text_string_to_metric_families

from perllm_lab.nodes.machine import HardwareReading
from perllm_lab.nodes.metrics import render_exporters
from unit.lab_nodes.setting import SPEC

SAMPLE = HardwareReading(energy_j=1234.5, power_w=32.0, received_bytes=5e6)


def parse(page):
    samples = [sample for family in text_string_to_metric_families(page.decode()) for sample in family.samples]
    return {sample.name: sample for sample in samples}


def test_dcgm_power_runs_at_speed_and_energy_is_true_millijoules():
    samples = parse(render_exporters(SPEC, SAMPLE, speed=20.0))
    assert samples["DCGM_FI_DEV_POWER_USAGE"].value == 640.0
    assert samples["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"].value == 1_234_500.0


def test_dcgm_labels_name_gpu_and_node():
    labels = parse(render_exporters(SPEC, SAMPLE, speed=1.0))["DCGM_FI_DEV_POWER_USAGE"].labels
    assert labels.keys() == {"gpu", "UUID", "device", "modelName", "Hostname"}
    assert labels["Hostname"] == "edge-0"


def test_node_exporter_names_and_units():
    samples = parse(render_exporters(SPEC, SAMPLE, speed=20.0))
    assert samples["node_network_receive_bytes_total"].value == 5e6
    assert samples["node_network_transmit_bytes_total"].value == 0.0
    assert samples["node_network_speed_bytes"].value == pytest.approx(20e6)  # 8 Mbit/s, 20 times as fast
    assert samples["node_network_speed_bytes"].labels == {"device": "eth0"}
