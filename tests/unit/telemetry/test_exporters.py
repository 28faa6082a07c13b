"""The ready-made values, tried on pages as the exporters' documentation describes them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import yaml
from prometheus_client import CollectorRegistry

from perllm.config import Config
from perllm.doctor.finding import Level
from perllm.doctor.telemetry import Answers, Nodes, check_telemetry
from perllm.guard import Guard
from perllm.telemetry.feeds import list_feeds
from perllm.telemetry.metrics import TelemetryMetrics
from perllm.telemetry.poller import Telemetry
from perllm.telemetry.settings import TelemetrySettings
from unit.telemetry.exposition import ScrapedTargets, Target

VALUES = Path(__file__).parents[3] / "examples/values"
NODE, ADDRESS, NOW_S = "gpu-node-1", "10.0.0.1", 100_000.0
FIRST_S = NOW_S - 600.0

# Behind an exporter in the network of pods, so that its address is not that of the node.
POD = {"instance": "10.244.1.7:9400", "job": "exporter", "namespace": "monitoring", "pod": "exporter-x2x1z"}
HOST = {"instance": f"{ADDRESS}:9100", "job": "exporter"}
RELABELLED = {**POD, "node": NODE}

# Counters rise by 63 W a device where gauges say 60 W, so that it shows which of them counts.
DCGM_RATES = {"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 63e3}
KEPLER_RATES = {"kepler_node_cpu_joules_total": 63.0, "kepler_node_gpu_joules_total": 63.0}
AMD_RATES = {"gpu_energy_consumed": 63e6}
INTEL_RATES = {"xpum_energy_joules_total": 63.0}
NETWORK_RATES = {"node_network_receive_bytes_total": 1e6}

OLD_DCGM = Target("dcgm-before-rename.prom", POD, DCGM_RATES)
NEW_DCGM = Target("dcgm-after-rename.prom", POD, DCGM_RATES)
KEPLER = Target("kepler.prom", POD, KEPLER_RATES)
AMD = Target("amd.prom", POD, AMD_RATES)
REDFISH = Target("redfish.prom", RELABELLED, {})


@dataclass(frozen=True)
class Case:
    """What a node behind some exporters is found to draw, by the values that are meant for them.

    Attributes:
        values: Name of the file with the values.
        targets: The exporters.
        energy_w: Energy per second; 0 if it is not measured.
        meters: The meters that count.
    """

    values: str
    targets: Sequence[Target]
    energy_w: float
    meters: tuple[str, ...] = ()


CASES = {
    "dcgm-exporter with Hostname": Case("dcgm-exporter", [OLD_DCGM], 2 * 63, ("queries",)),
    "dcgm-exporter with hostname": Case("dcgm-exporter", [NEW_DCGM], 2 * 63, ("queries",)),
    "dcgm-exporter with MIG": Case("dcgm-exporter", [Target("dcgm-mig.prom", POD, DCGM_RATES)], 63, ("queries",)),
    "Kepler": Case("kepler", [KEPLER], 3 * 63, ("gpu", "cpu")),
    "AMD": Case("amd", [AMD], 2 * 63, ("amd",)),
    "AMD, UUIDs of zeros": Case("amd", [Target("amd-virtual-functions.prom", POD, AMD_RATES)], 2 * 63, ("amd",)),
    "Jetson with jtop": Case("jetson-jtop", [Target("jetson-jtop.prom", HOST, {})], 15, ("board",)),
    "Jetson with tegrastats": Case("jetson-tegrastats", [Target("jetson-tegrastats.prom", POD, {})], 15, ("board",)),
    "Intel": Case("intel", [Target("intel.prom", POD, INTEL_RATES)], 63, ("intel",)),
    "Redfish": Case("redfish", [REDFISH], 5000, ("redfish",)),
    "PDU": Case("pdu", [Target("pdu.prom", {"instance": "pdu-a"}, {})], 600, ("pdu",)),
    "none": Case("node-exporter", [], 0),
    "dcgm-exporter, Kepler and Redfish": Case("several-meters", [OLD_DCGM, KEPLER, REDFISH], 2 * 63, ("dcgm",)),
    "two vendors in one server": Case("several-meters", [NEW_DCGM, AMD], 4 * 63, ("dcgm", "amd")),
    "a server without GPU metrics": Case("several-meters", [REDFISH], 5000, ("redfish",)),
}


def settings_of(name: str) -> TelemetrySettings:
    return Config.model_validate(yaml.safe_load((VALUES / f"{name}.yaml").read_text())["config"]).telemetry


async def poll(settings: TelemetrySettings, targets: Sequence[Target]) -> tuple[Telemetry, CollectorRegistry]:
    registry = CollectorRegistry()
    telemetry = Telemetry(
        ScrapedTargets(targets, FIRST_S, NOW_S),
        settings,
        lambda: {NODE: [ADDRESS], "other": ["10.0.0.2"]},
        lambda: NOW_S,
        TelemetryMetrics(registry),
        guard=Guard(lambda _: None, Random(0)),
        rng=Random(0),
    )
    await telemetry.poll()
    return telemetry, registry


@pytest.mark.parametrize("name", CASES)
def test_energy_of_a_node_is_that_of_all_its_devices_once(name: str) -> None:
    case = CASES[name]
    settings = settings_of(case.values)
    telemetry, registry = asyncio.run(poll(settings, case.targets))

    found = telemetry.energy.intervals(NODE, NOW_S - 100, NOW_S - 60)

    assert telemetry.healthy
    assert found.meters == case.meters
    assert found.energy_j.sum() == pytest.approx(40 * case.energy_w)
    assert (telemetry.snapshot.of(NODE).power_w.fresh_value is not None) == bool(case.meters)
    for feed in list_feeds(settings):
        assert registry.get_sample_value("perllm_telemetry_unusable_series", {"metric": feed.name}) == 0


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.meters])
def test_the_doctor_finds_nothing_wrong_with_the_energy(name: str) -> None:
    case = CASES[name]
    settings, source = settings_of(case.values), ScrapedTargets(case.targets, FIRST_S, NOW_S)
    series = {feed: asyncio.run(source.query(feed.query.replace("{window}", "900s"))) for feed in list_feeds(settings)}

    findings = check_telemetry(Answers(series, {}), Nodes({NODE: [ADDRESS]}, {NODE}), settings, NOW_S, is_inside=True)

    assert [one.level for one in findings if "no usable series" not in one.message] == [Level.OK]


@pytest.mark.parametrize("values", ["dcgm-exporter", "kepler", "amd", "jetson-jtop", "intel", "node-exporter"])
def test_the_uplink_is_found_with_every_set_of_values(values: str) -> None:
    target = Target("node-exporter.prom", HOST, NETWORK_RATES)
    telemetry, _ = asyncio.run(poll(settings_of(values), [target]))

    figures = telemetry.snapshot.of(NODE)

    assert figures.bandwidth_total_bps.fresh_value == 1e9
    assert figures.bandwidth_used_bps.fresh_value == pytest.approx(8e6)


def test_matchers_keep_out_a_node_of_the_same_name_in_another_cluster() -> None:
    def page(cluster: str, milliwatts: float) -> Target:
        rates = dict.fromkeys(DCGM_RATES, milliwatts)
        return Target("dcgm-mig.prom", {**POD, "cluster": cluster}, rates)

    settings = settings_of("dcgm-exporter").model_copy(update={"matchers": {"cluster": "here"}})
    telemetry, _ = asyncio.run(poll(settings, [page("here", 60e3), page("there", 500e3)]))

    assert telemetry.energy.intervals(NODE, NOW_S - 100, NOW_S - 60).energy_j.sum() == pytest.approx(40 * 60)
