import re

import pytest
from pydantic import ValidationError

from perllm.telemetry.feeds import NodeMetric, find_limit_w, list_feeds, list_meters
from perllm.telemetry.queries import (
    SHARED_DEVICES,
    VIRTUAL_DEVICES,
    MeterSettings,
    Queries,
    add_matchers,
    select_window,
)
from perllm.telemetry.settings import TelemetrySettings

METERS = (
    MeterSettings(name="dcgm", part="nvidia", energy="joules[{window}]"),
    MeterSettings(
        name="redfish", part="server", power="watts[{window}]", max_device_power_w=9000, device_labels=("id",)
    ),
)


def test_query_without_a_window_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"must select a range with \[\{window\}\]"):
        Queries(power="DCGM_FI_DEV_POWER_USAGE")


def test_meter_without_a_query_is_refused() -> None:
    with pytest.raises(ValidationError, match="must have a query for energy, power, or both"):
        MeterSettings(name="none")


def test_meters_of_the_same_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="must have each name only once"):
        TelemetrySettings(meters=(METERS[0], METERS[0]))


def test_window_is_rounded_up_to_seconds() -> None:
    assert select_window("watts[{window}]", 14.2, {}) == "watts[15s]"


@pytest.mark.parametrize(
    ("query", "restricted"),
    [
        ("watts[{window}]", 'watts{cluster="eu"}[{window}]'),
        ("watts{}[{window}]", 'watts{cluster="eu"}[{window}]'),
        ('watts{gpu="0"}[{window}]', 'watts{gpu="0", cluster="eu"}[{window}]'),
        ('watts{gpu="0",} [{window}]', 'watts{gpu="0", cluster="eu"}[{window}]'),
        ('{__name__=~"a|b"}[{window}]', '{__name__=~"a|b", cluster="eu"}[{window}]'),
        ("a[{window}] or b[{window}]", 'a{cluster="eu"}[{window}] or b{cluster="eu"}[{window}]'),
    ],
)
def test_matchers_restrict_every_selector(query: str, restricted: str) -> None:
    assert add_matchers(query, {"cluster": "eu"}) == restricted


def test_matchers_are_quoted() -> None:
    assert add_matchers("a[{window}]", {"c": 'x"}\\'}) == 'a{c="x\\"}\\\\"}[{window}]'


def test_default_queries_are_the_only_meter_unless_others_are_set() -> None:
    (meter,) = list_meters(TelemetrySettings())

    assert meter.energy_unit_j == 1e-3
    assert [meter.name for meter in list_meters(TelemetrySettings(meters=METERS))] == ["dcgm", "redfish"]


def test_meters_take_what_they_lack_from_the_common_settings() -> None:
    settings = TelemetrySettings(meters=METERS, device_labels=("UUID",), max_device_power_w=700)

    assert [feed.device_labels for feed in list_feeds(settings)][:2] == [("UUID",), ("id",)]
    assert [find_limit_w(meter, settings) for meter in list_meters(settings)] == [700, 9000]


def test_feeds_are_named_after_their_metric_and_other_meters_than_the_default() -> None:
    assert [feed.name for feed in list_feeds(TelemetrySettings())] == list(NodeMetric)
    assert [feed.name for feed in list_feeds(TelemetrySettings(meters=METERS))][:2] == ["dcgm.energy", "redfish.power"]


def test_transmitted_bytes_need_not_be_queried() -> None:
    feeds = list_feeds(TelemetrySettings(queries=Queries(transmitted_shared=None)))

    assert NodeMetric.TRANSMITTED not in {feed.metric for feed in feeds}


PHYSICAL = (
    "eth0 eno1 ens5 ens1f0np0 enp3s0 enP2p1s0 enx0050b6123456 bond0 bond0.100 team0 wlan0 wlp3s0 wwan0 usb0 ib0 end0 "
    "mlan0 rename2 p5p1 em1 lan1 vmbr0 br0 eth0.5"
)
VIRTUAL = (
    "lo veth1a2b3c4d 3f0c9a1d2b4e5f6 enib7d33c1a2ff cali0123456789a cilium_host lxc12ab docker0 cni0 flannel.1 tunl0 "
    "br-4c1f kube-ipvs0 nodelocaldns dummy0 ovn-k8s-mp0 ovs-system genev_sys_6081 vxlan_sys_4789 gke52b1a9c0f3d "
    "azv1234abcd weave antrea-gw0 podman1 virbr0 vnet3 tap0 ip6tnl0 sit0 gre0 tailscale0 tun0 nebula1 ztksetbnx7 wg0 "
    "wireguard.cali 0a1b2c3d4e5f_h 0a1b2c3d_net1_h"
)


@pytest.mark.parametrize("device", PHYSICAL.split())
def test_physical_interfaces_are_queried(device: str) -> None:
    assert not re.fullmatch(VIRTUAL_DEVICES, device)


@pytest.mark.parametrize("device", VIRTUAL.split())
def test_interfaces_of_pods_and_overlays_are_not(device: str) -> None:
    assert re.fullmatch(VIRTUAL_DEVICES, device)


@pytest.mark.parametrize(
    ("device", "is_shared"), [("wlan0", True), ("wlp3s0", True), ("eth0", False), ("wwan0", False)]
)
def test_both_directions_share_the_bandwidth_of_wireless_interfaces_only(device: str, is_shared: bool) -> None:
    assert bool(re.fullmatch(SHARED_DEVICES, device)) is is_shared
