"""What the doctor says about Prometheus, for nodes a and bb."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from perllm.doctor.finding import Finding, Level
from perllm.doctor.telemetry import Answers, Nodes, check_telemetry
from perllm.telemetry.feeds import NodeMetric, list_feeds
from perllm.telemetry.queries import MeterSettings
from perllm.telemetry.series import Series
from perllm.telemetry.settings import TelemetrySettings
from unit.doctor.cluster_objects import NOW_S

NODES = Nodes({"a": ["10.0.0.1"], "bb": ["10.0.0.2"], "cpu": ["10.0.0.3"]}, {"a", "bb"})
SETTINGS = TelemetrySettings()
FEEDS = {feed.metric: feed for feed in list_feeds(SETTINGS)}
ENERGY, POWER = NodeMetric.ENERGY, NodeMetric.POWER


def series(label: str, value: str, *, age_s: float = 3.0, rate: float = 1e5, **labels: str) -> Series:
    """Return samples of ten minutes, ten seconds apart, that rise by ``rate`` a second, as 100 W do in millijoules."""
    samples = tuple((NOW_S - age_s - 10.0 * step, rate * (1e6 - 10.0 * step)) for step in range(60, -1, -1))
    return Series({"__name__": "m", label: value, **labels}, samples)


def check(
    found: dict[NodeMetric, list[Series]], errors: Mapping[NodeMetric, str] = MappingProxyType({})
) -> dict[str, Finding]:
    """Return the findings by what they are about; every metric that is not given is complete.

    Of several findings about one metric the last counts.
    """
    complete = {metric: [series("node", "a"), series("instance", "10.0.0.2:9100")] for metric in NodeMetric}
    complete[POWER] = []
    answers = {FEEDS[metric]: found for metric, found in {**complete, **found}.items() if metric not in errors}
    failed = {FEEDS[metric]: error for metric, error in errors.items()}
    findings = check_telemetry(Answers(answers, failed), NODES, SETTINGS, NOW_S, is_inside=True)
    return {one.message.partition(":")[0]: one for one in findings}


def test_figures_of_every_node_are_fine_and_their_age_is_told() -> None:
    findings = check({})
    assert {one.level for one in findings.values()} == {Level.OK}
    assert findings["energy"].message == "energy: all 2 nodes, newest samples 3 to 3 s old"


def test_nodes_without_a_figure_are_named_with_what_follows() -> None:
    finding = check({ENERGY: [series("node", "a")]})["energy"]
    assert finding.level is Level.WARN
    assert "no usable series of bb; the energy of tasks there is neither measured nor learned" in finding.message
    assert finding.advice == "run the exporter there"


def test_a_node_with_power_but_without_a_counter_is_measured() -> None:
    finding = check({ENERGY: [series("node", "a")], POWER: [series("node", "bb", rate=1e-4)]})["energy"]
    assert (finding.level, finding.message) == (Level.OK, "energy: all 2 nodes, newest samples 3 to 3 s old")


@pytest.mark.parametrize(
    ("metric", "settings"),
    [
        (ENERGY, "config.telemetry.queries.energy and config.telemetry.queries.power"),
        (NodeMetric.RECEIVED, "config.telemetry.queries.received"),
        (NodeMetric.LINK_SPEED, "config.telemetry.queries.link_speed"),
    ],
)
def test_a_figure_that_nobody_measures_is_a_warning(metric: NodeMetric, settings: str) -> None:
    finding = check({metric: []})[metric]
    assert finding.level is Level.WARN
    assert settings in finding.advice


def test_figures_of_unknown_nodes_alone_fail_and_are_shown() -> None:
    finding = check({ENERGY: [series("pod", "exporter-x")]})["energy"]
    assert finding.level is Level.FAIL
    assert (
        "1 series name no known node in node, Hostname, hostname, kubernetes_node, instance, "
        "for example {pod=exporter-x}"
    ) in finding.advice


def test_figures_of_nodes_without_gpu_are_nobodys_mistake() -> None:
    finding = check({ENERGY: [series("node", "cpu")]})["energy"]
    assert (finding.level, finding.advice) == (Level.WARN, "run the exporter there")


def test_old_samples_are_a_warning() -> None:
    finding = check({ENERGY: [series("node", "a", age_s=300), series("node", "bb")]})["energy"]
    assert finding.level is Level.WARN
    assert "newest samples 3 to 300 s old; too old: a" in finding.message


@pytest.mark.parametrize(
    ("ahead_s", "follows"), [(500.0, "are ignored"), (10.0, "count for other moments than theirs")]
)
def test_samples_of_the_future_are_a_warning(ahead_s: float, follows: str) -> None:
    finding = check({ENERGY: [series("node", "a", age_s=-ahead_s), series("node", "bb")]})["energy"]
    assert finding.level is Level.WARN
    assert f"samples of a are up to {ahead_s:.0f} s in the future and {follows}" in finding.message
    assert "compare the clocks" in finding.advice


def test_a_series_that_cannot_be_used_is_shown_and_spoils_no_other() -> None:
    odd = Series({"pod": "exporter-x"}, (), "it has no list of samples")
    found = {FEEDS[ENERGY]: [odd, series("node", "a"), series("node", "bb")]}
    finding, fine = list(check_telemetry(Answers(found, {}), NODES, SETTINGS, NOW_S, is_inside=True))[:2]
    assert (fine.level, finding.level) == (Level.OK, Level.WARN)
    assert finding.message == "energy: 1 series cannot be used, for example {pod=exporter-x}: it has no list of samples"


def test_a_query_that_fails_says_which() -> None:
    finding = check({}, errors={NodeMetric.RECEIVED: "parse error"})["received"]
    assert (finding.level, finding.message) == (Level.FAIL, "received: parse error")
    assert finding.advice == "correct config.telemetry.queries.received"


def test_a_meter_is_named_by_its_own_name() -> None:
    settings = TelemetrySettings(meters=(MeterSettings(name="redfish", part="server", power="watts[{window}]"),))
    feed = list_feeds(settings)[0]
    finding = next(iter(check_telemetry(Answers({}, {feed: "bad"}), NODES, settings, NOW_S, is_inside=True)))
    assert (finding.message, finding.advice) == ("redfish.power: bad", "correct config.telemetry.meters (redfish)")


def test_an_address_of_two_nodes_is_named() -> None:
    nodes = Nodes({"a": ["10.0.0.9"], "b": ["10.0.0.9"]}, {"a"})
    finding = next(iter(check_telemetry(Answers({}, {}), nodes, SETTINGS, NOW_S, is_inside=True)))
    assert finding.level is Level.WARN
    assert "10.0.0.9 is of a, b" in finding.message


def test_nodes_of_two_clusters_with_one_name_need_matchers() -> None:
    both = [series("node", "a", cluster="here"), series("node", "a", cluster="there"), series("node", "bb")]
    found = {FEEDS[ENERGY]: both}
    finding = next(iter(check_telemetry(Answers(found, {}), NODES, SETTINGS, NOW_S, is_inside=True)))
    assert finding.level is Level.WARN
    assert "cluster is one of here, there" in finding.message
    assert "set telemetry.matchers" in finding.message


def test_a_counter_that_rises_faster_than_any_device_is_named_with_its_power() -> None:
    finding = check({ENERGY: [series("node", "a"), series("node", "bb", UUID="x", rate=5e6)]})["energy"]
    assert "bb/x draws 5000 W, above the limit of 2000 W" in finding.message
    assert "raise max_device_power_w" in finding.advice


@pytest.mark.parametrize(("metric", "rate", "unit"), [(ENERGY, 60.0, "energy_unit_j"), (POWER, 6e-8, "power_unit_w")])
def test_a_unit_that_is_a_thousand_times_too_small_is_named(metric: NodeMetric, rate: float, unit: str) -> None:
    answers = {FEEDS[metric]: [series("node", "a", UUID="x", rate=rate), series("node", "bb", UUID="y", rate=rate)]}
    findings = check_telemetry(Answers(answers, {}), NODES, SETTINGS, NOW_S, is_inside=True)

    (named,) = [one for one in findings if "draws more than" in one.message]
    assert named.message == f"{metric}: no device of a, bb draws more than 0.06 W"
    assert named.advice == f"correct {unit}"


def test_a_power_in_another_unit_is_named_and_its_node_is_not_sent_an_exporter() -> None:
    answers = {FEEDS[ENERGY]: [series("node", "a")], FEEDS[POWER]: [series("node", "bb", UUID="x", rate=0.015)]}
    findings = list(check_telemetry(Answers(answers, {}), NODES, SETTINGS, NOW_S, is_inside=True))
    lacking = next(one for one in findings if "no usable series of bb" in one.message)
    named = next(one for one in findings if "bb/x draws" in one.message)
    assert lacking.advice == "their series cannot be used: see the other warnings"
    assert named.advice == "correct power_unit_w, or raise max_device_power_w"


@pytest.mark.parametrize(("rate", "is_named"), [(1.0, True), (1000.0 * 1e6, False)])
def test_a_counter_in_another_unit_than_its_power_is_named(rate: float, is_named: bool) -> None:
    """The default unit of the counter is a millijoule, and the power rises to 1 MW here."""
    meter = MeterSettings(
        name="m", energy="e[{window}]", energy_unit_j=1e-3, power="p[{window}]", max_device_power_w=1e9
    )
    settings = TelemetrySettings(meters=(meter,))
    energy, power = list_feeds(settings)[:2]
    answers = {energy: [series("node", "a", UUID="x", rate=rate)], power: [series("node", "a", UUID="x", rate=1.0)]}
    findings = list(check_telemetry(Answers(answers, {}), NODES, settings, NOW_S, is_inside=True))

    named = [one.message for one in findings if "by its counter" in one.message]
    assert named == (
        ["m.energy: a/x uses 0.001 W by its counter, 1e+06 W by its power; the counter is believed"] * is_named
    )


def test_what_an_exporter_cannot_read_is_named() -> None:
    still = [series("node", "a", UUID="x", rate=0.0), series("node", "bb", UUID="y")]
    for feed, words in ((ENERGY, "a/x does not rise"), (POWER, "a/x is always 0")):
        findings = check_telemetry(Answers({FEEDS[feed]: still}, {}), NODES, SETTINGS, NOW_S, is_inside=True)
        assert any(words in one.message for one in findings)


def test_a_gpu_that_vanished_is_named() -> None:
    gone = series("node", "a", UUID="x", age_s=300)
    finding = check({ENERGY: [series("node", "a", UUID="y"), gone, series("node", "bb")]})["energy"]
    assert "a/x is no longer measured" in finding.message


def test_two_counters_under_one_name_are_named() -> None:
    mixed = [series("node", "a", device="eth0"), series("node", "a", device="eth0", age_s=5.0, rate=0.5)]
    finding = check({NodeMetric.RECEIVED: mixed})["received"]
    assert "a/eth0 keeps falling" in finding.message


@pytest.mark.parametrize(
    ("url", "is_inside", "level"),
    [
        ("http://prometheus.monitoring.svc:9090", True, Level.FAIL),
        ("http://prometheus.monitoring.svc:9090", False, Level.WARN),
        ("http://prometheus:9090", False, Level.WARN),
        ("https://metrics.example.com", False, Level.FAIL),
    ],
)
def test_a_prometheus_that_only_the_cluster_can_reach_is_no_failure_outside(
    url: str, is_inside: bool, level: Level
) -> None:
    settings = TelemetrySettings(url=url)
    (finding,) = check_telemetry(Answers({}, {}, "no answer"), NODES, settings, NOW_S, is_inside=is_inside)
    assert finding.level is level
