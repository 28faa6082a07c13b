"""Checks whether Prometheus has the figures that PerLLM queries."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from perllm.doctor.finding import Finding, fail, name_some, ok, warn
from perllm.telemetry.mapping import NodeMapping
from perllm.telemetry.readings import NodeMetric
from perllm.telemetry.series import Series, describe_labels
from perllm.telemetry.settings import TelemetrySettings

CHECK = "Prometheus"

_LOST = {
    NodeMetric.ENERGY: "the energy of tasks there is neither measured nor learned",
    NodeMetric.POWER: "the condition MetricsAvailable of tasks there is False",
    NodeMetric.RECEIVED: "their uplinks are assumed to be idle",
    NodeMetric.LINK_SPEED: "config.nodes.default_bandwidth_mbit_s is assumed there",
}


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of Prometheus.

    Attributes:
        series: series that were found, by metric.
        errors: why there is no answer, by metric.
        unreachable: why Prometheus does not answer at all; empty if it does.
    """

    series: Mapping[NodeMetric, Sequence[Series]]
    errors: Mapping[NodeMetric, str]
    unreachable: str = ""


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes that series may belong to.

    Attributes:
        addresses: addresses of every node in the cluster, by its name.
        fleet: names of the nodes that PerLLM places tasks on.
    """

    addresses: Mapping[str, Collection[str]]
    fleet: Collection[str]


def check_telemetry(
    answers: Answers, nodes: Nodes, settings: TelemetrySettings, now_s: float, *, is_inside: bool
) -> Iterator[Finding]:
    """Check the answers to all queries, for the nodes that PerLLM places tasks on."""
    if answers.unreachable:
        yield _explain_unreachable(answers.unreachable, settings, is_inside=is_inside)
        return
    for metric in NodeMetric:
        if metric in answers.errors:
            advice = f"correct config.telemetry.queries.{metric}"
            yield fail(CHECK, f"{metric}: {answers.errors[metric]}", advice)
        elif nodes.fleet:
            found = answers.series.get(metric, ())
            yield _check_metric(metric, [one for one in found if not one.fault], nodes, settings, now_s)
            yield from _check_series(metric, found)


def _explain_unreachable(error: str, settings: TelemetrySettings, *, is_inside: bool) -> Finding:
    host = urlsplit(settings.url).hostname or ""
    if not is_inside and (host.endswith((".svc", ".cluster.local")) or "." not in host):
        advice = "run the doctor inside: kubectl exec deploy/perllm -c operator -- perllm doctor --config ..., or pass "
        return warn(CHECK, f"{host} can be reached from inside the cluster only", f"{advice}--prometheus URL")
    return fail(CHECK, error, "set config.telemetry.url and token_file, or networkPolicy.prometheus")


def _check_series(metric: NodeMetric, found: Sequence[Series]) -> Iterator[Finding]:
    faulty = [f"{describe_labels(one.labels)}: {one.fault}" for one in found if one.fault]
    if faulty:
        message = f"{metric}: {len(faulty)} of {len(found)} series cannot be used, for example {faulty[0]}"
        yield warn(CHECK, message, "check the output of their exporter, and rules that rewrite it")


def _check_metric(
    metric: NodeMetric, found: Sequence[Series], nodes: Nodes, settings: TelemetrySettings, now_s: float
) -> Finding:
    newest, strangers = _find_newest(found, nodes, settings)
    lacking = sorted(name for name in nodes.fleet if name not in newest)
    stale = sorted(name for name, time_s in newest.items() if now_s - time_s > settings.stale_after_s)
    if lacking:
        message = f"{metric}: no series of {name_some(lacking)}; {_LOST[metric]}"
        # Nodes without exporters are fine, but series that exist should identify a node.
        judge = fail if strangers and not newest else warn
        return judge(CHECK, message, _advise(metric, found, strangers, settings))
    ahead = sorted(name for name, time_s in newest.items() if time_s - now_s > settings.stale_after_s)
    if ahead:
        message = f"{metric}: samples of {name_some(ahead)} are in the future and are ignored"
        return warn(CHECK, message, "compare the clocks of Prometheus, its exporters and PerLLM")
    ages = sorted(now_s - time_s for time_s in newest.values())
    message = f"{metric}: all {len(newest)} nodes, newest samples {ages[0]:.0f} to {ages[-1]:.0f} s old"
    if stale:
        return warn(CHECK, f"{message}; too old: {name_some(stale)}", "check their exporters, or raise stale_after_s")
    return ok(CHECK, message)


def _find_newest(
    found: Sequence[Series], nodes: Nodes, settings: TelemetrySettings
) -> tuple[dict[str, float], list[Series]]:
    """Return the time of the newest sample of each node of the fleet, and series that belong to no known node."""
    mapping = NodeMapping.build(nodes.addresses, settings.node_labels)
    newest: dict[str, float] = {}
    strangers = []
    for series in found:
        name = mapping.find(series.labels)
        if name is None:
            strangers.append(series)
        elif series.samples and name in nodes.fleet:
            newest[name] = max(newest.get(name, 0.0), series.samples[-1][0])
    return newest, strangers


def _advise(
    metric: NodeMetric, found: Sequence[Series], strangers: Sequence[Series], settings: TelemetrySettings
) -> str:
    if not found:
        return f"the query returns nothing: run its exporter, or set config.telemetry.queries.{metric}"
    if not strangers:
        return "run the exporter there"
    return (
        f"{len(strangers)} series name no known node in {', '.join(settings.node_labels)}, for example "
        f"{describe_labels(strangers[0].labels)}: set config.telemetry.node_labels, or relabel"
    )
