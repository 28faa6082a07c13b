import pytest

from perllm.doctor.finding import Finding, Level
from perllm.doctor.telemetry import Answers, Nodes, check_telemetry
from perllm.telemetry.readings import NodeMetric
from perllm.telemetry.series import Series
from perllm.telemetry.settings import TelemetrySettings
from unit.doctor.cluster_objects import NOW_S

NODES = Nodes({"a": ["10.0.0.1"], "bb": ["10.0.0.2"], "cpu": ["10.0.0.3"]}, {"a", "bb"})
SETTINGS = TelemetrySettings()


def series(label: str, value: str, age_s: float = 3.0) -> Series:
    return Series({"__name__": "m", label: value}, ((NOW_S - age_s, 1.0),))


def check(found: dict[NodeMetric, list[Series]], **fields: object) -> dict[str, Finding]:
    """Return the findings by metric; every metric that is not given is complete."""
    complete = {metric: [series("node", "a"), series("instance", "10.0.0.2:9100")] for metric in NodeMetric}
    answers = Answers({**complete, **found}, fields.pop("errors", {}))  # type: ignore[arg-type]
    findings = check_telemetry(answers, NODES, SETTINGS, NOW_S, is_inside=True)
    return {one.message.partition(":")[0]: one for one in findings}


def test_figures_of_every_node_are_fine_and_their_age_is_told() -> None:
    findings = check({})
    assert {one.level for one in findings.values()} == {Level.OK}
    assert findings["power"].message == "power: all 2 nodes, newest samples 3 to 3 s old"


def test_nodes_without_a_figure_are_named_with_what_follows() -> None:
    finding = check({NodeMetric.ENERGY: [series("node", "a")]})["energy"]
    assert finding.level is Level.WARN
    assert "no series of bb; the energy of tasks there is neither measured nor learned" in finding.message
    assert finding.advice == "run the exporter there"


@pytest.mark.parametrize("metric", list(NodeMetric))
def test_a_figure_that_nobody_measures_is_a_warning(metric: NodeMetric) -> None:
    finding = check({metric: []})[metric]
    assert finding.level is Level.WARN
    assert f"config.telemetry.queries.{metric}" in finding.advice


def test_figures_of_unknown_nodes_alone_fail_and_are_shown() -> None:
    finding = check({NodeMetric.POWER: [series("pod", "exporter-x")]})["power"]
    assert finding.level is Level.FAIL
    assert "1 series name no known node in node, Hostname, kubernetes_node, instance, for example {pod=exporter-x}" in (
        finding.advice
    )


def test_figures_of_nodes_without_gpu_are_nobodys_mistake() -> None:
    finding = check({NodeMetric.POWER: [series("node", "cpu")]})["power"]
    assert (finding.level, finding.advice) == (Level.WARN, "run the exporter there")


def test_old_samples_are_a_warning() -> None:
    finding = check({NodeMetric.POWER: [series("node", "a", age_s=600), series("node", "bb")]})["power"]
    assert finding.level is Level.WARN
    assert "newest samples 3 to 600 s old; too old: a" in finding.message


def test_samples_of_the_future_are_a_warning() -> None:
    finding = check({NodeMetric.POWER: [series("node", "a", age_s=-600), series("node", "bb")]})["power"]
    assert finding.level is Level.WARN
    assert "samples of a are in the future" in finding.message
    assert "compare the clocks" in finding.advice


def test_a_series_that_cannot_be_used_is_shown_and_spoils_no_other() -> None:
    odd = Series({"pod": "exporter-x"}, (), "it has no list of samples")
    answers = Answers({NodeMetric.POWER: [odd, series("node", "a"), series("node", "bb")]}, {})
    fine, finding = list(check_telemetry(answers, NODES, SETTINGS, NOW_S, is_inside=True))[1:3]
    assert (fine.level, finding.level) == (Level.OK, Level.WARN)
    assert finding.message == (
        "power: 1 of 3 series cannot be used, for example {pod=exporter-x}: it has no list of samples"
    )


def test_a_query_that_fails_says_which() -> None:
    finding = check({}, errors={NodeMetric.ENERGY: "parse error"})["energy"]
    assert (finding.level, finding.message) == (Level.FAIL, "energy: parse error")


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
