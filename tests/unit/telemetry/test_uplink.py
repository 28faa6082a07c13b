from array import array

from perllm.energy.series import TimeSeries
from perllm.telemetry.uplink import choose_uplink, find_rate_bps

GIGABIT = 125e6


def series(*values: float) -> TimeSeries:
    return TimeSeries(array("d", range(0, 5 * len(values), 5)), array("d", values))


def test_the_interface_that_carries_most_is_the_uplink_not_the_fastest() -> None:
    received = {"eno1": series(1e9, 2e9), "veth": series(0, 8000)}

    assert choose_uplink(received, {"eno1": series(GIGABIT), "veth": series(10 * GIGABIT)}) == "eno1"


def test_an_uplink_without_speed_is_found_among_ports_that_have_one() -> None:
    received = {"eth0": series(0, 500), "wlan0": series(1e9, 1e9 + 3e7)}

    assert choose_uplink(received, {"eth0": series(GIGABIT)}) == "wlan0"


def test_while_all_are_nearly_idle_what_passed_since_the_boot_decides() -> None:
    received = {"eth0": series(0, 500), "wlan0": series(1e9, 1e9 + 100)}

    assert choose_uplink(received, {}) == "wlan0"


def test_after_a_failover_the_new_uplink_is_found_by_what_it_carries_lately() -> None:
    received = {"eth0": series(1e12, 1e12), "wwan0": series(0, 2e7)}

    assert choose_uplink(received, {}) == "wwan0"


def test_a_bond_is_the_uplink_rather_than_one_of_its_ports() -> None:
    received = {"bond0": series(0, 2e9), "eno1": series(0, 1e9), "eno2": series(0, 1e9)}
    speeds = {"bond0": series(2 * GIGABIT), "eno1": series(GIGABIT), "eno2": series(GIGABIT)}

    assert choose_uplink(received, speeds) == "bond0"


def test_a_port_with_a_speed_is_preferred_to_the_bridge_over_it() -> None:
    assert choose_uplink({"br0": series(0, 1.001e9), "eno1": series(0, 1e9)}, {"eno1": series(GIGABIT)}) == "eno1"


def test_an_interface_of_a_pod_that_receives_nearly_everything_is_not_the_uplink() -> None:
    speeds = {"eno1": series(GIGABIT), "pod0": series(10 * GIGABIT)}

    assert choose_uplink({"eno1": series(0, 1e9), "pod0": series(0, 0.98e9)}, speeds) == "eno1"


def test_without_traffic_figures_the_fastest_interface_stands_for_the_node() -> None:
    assert choose_uplink({}, {"eth0": series(GIGABIT), "eth1": series(10 * GIGABIT)}) == "eth1"
    assert choose_uplink({}, {}) == ""


def test_two_counters_under_one_name_are_neither_an_uplink_nor_a_rate() -> None:
    mixed = series(0, 9e9, 5e6, 9.1e9, 1e7, 9.2e9, 1.5e7)

    assert find_rate_bps(mixed) is None
    assert choose_uplink({"eth0": mixed, "eth1": series(*[0.0] * 7)}, {}) == "eth1"
