"""Checks whether Prometheus has the figures that PerLLM queries."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from perllm.doctor.finding import Finding, fail, name_some, ok, warn
from perllm.doctor.meters import check_devices
from perllm.telemetry.assignment import SeriesAssignment
from perllm.telemetry.feeds import Feed, NodeMetric, list_feeds
from perllm.telemetry.mapping import NodeMapping
from perllm.telemetry.readings import Readings
from perllm.telemetry.series import Series, describe_labels
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.snapshot import Figure, NodeFigures

CHECK = "Prometheus"

_METERED = (NodeMetric.ENERGY, NodeMetric.POWER)
_LOST = {
    "energy": "the energy of tasks there is neither measured nor learned",
    "received": "their uplinks are assumed to be idle",
    "link_speed": "config.nodes.default_bandwidth_mbit_s is assumed there",
}


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of Prometheus.

    Attributes:
        series: series that were found, by feed.
        errors: why there is no answer, by feed.
        unreachable: why Prometheus does not answer at all; empty if it does.
    """

    series: Mapping[Feed, Sequence[Series]]
    errors: Mapping[Feed, str]
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


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found for one figure: the feeds that it comes from, their series, and those of no known node."""

    feeds: Sequence[Feed]
    series: int
    strangers: Sequence[Series]


def check_telemetry(
    answers: Answers, nodes: Nodes, settings: TelemetrySettings, now_s: float, *, is_inside: bool
) -> Iterator[Finding]:
    """Check the answers to all queries, for the nodes that PerLLM places tasks on."""
    if answers.unreachable:
        yield _explain_unreachable(answers.unreachable, settings, is_inside=is_inside)
        return
    for feed, error in answers.errors.items():
        yield fail(CHECK, f"{feed.name}: {error}", f"correct {feed.setting}")
    if not nodes.fleet:
        return
    mapping = NodeMapping.build(nodes.addresses, settings.node_labels)
    yield from _check_addresses(mapping, nodes)
    readings, strangers = Readings(settings), dict[Feed, list[Series]]()
    for feed, found in answers.series.items():
        assignment = SeriesAssignment(feed, mapping)
        for series in found:
            assignment.add(series)
        yield from _read_devices(assignment, feed, readings, now_s)
        strangers[feed] = assignment.unmapped
    figures = {node: readings.figures(node, now_s) for node in sorted(nodes.fleet)}
    for name, metrics in (
        ("energy", _METERED),
        ("received", (NodeMetric.RECEIVED,)),
        ("link_speed", (NodeMetric.LINK_SPEED,)),
    ):
        feeds = [feed for feed in list_feeds(settings) if feed.metric in metrics]
        if not all(feed in answers.errors for feed in feeds):
            known = [feed for feed in feeds if feed in strangers]
            unknown = [series for feed in known for series in strangers[feed]]
            found_here = _Found(feeds, sum(len(answers.series[feed]) for feed in known), unknown)
            chosen = {node: _choose(name, one) for node, one in figures.items()}
            yield _check_figure(name, chosen, found_here, settings, now_s)
    for message, advice in check_devices(readings, settings, nodes.fleet):
        yield warn(CHECK, message, advice)


def _explain_unreachable(error: str, settings: TelemetrySettings, *, is_inside: bool) -> Finding:
    host = urlsplit(settings.url).hostname or ""
    if not is_inside and (host.endswith((".svc", ".cluster.local")) or "." not in host):
        advice = "run the doctor inside: kubectl exec deploy/perllm -c operator -- perllm doctor --config ..., or pass "
        return warn(CHECK, f"{host} can be reached from inside the cluster only", f"{advice}--prometheus URL")
    return fail(CHECK, error, "set config.telemetry.url and token_file, or networkPolicy.prometheus")


def _check_addresses(mapping: NodeMapping, nodes: Nodes) -> Iterator[Finding]:
    shared = {address: names for address, names in mapping.shared.items() if not set(names).isdisjoint(nodes.fleet)}
    for address, names in sorted(shared.items())[:1]:
        message = f"{len(shared)} addresses are those of several nodes and identify none: {address} is of "
        yield warn(CHECK, f"{message}{name_some(names)}", "let Prometheus add a label with the node's name: node")


def _read_devices(assignment: SeriesAssignment, feed: Feed, readings: Readings, now_s: float) -> Iterator[Finding]:
    """Keep the samples of a feed; yield a finding if there are series that cannot be used."""
    faults = assignment.faults
    for device in assignment.list_devices():
        readings.find_history(feed).merge(device.node, device.device, device.samples, now_s)
        faults += [device.fault] if device.fault else []
    if faults:
        message = f"{feed.name}: {len(faults)} series cannot be used, for example {faults[0]}"
        yield warn(CHECK, message, "check the output of their exporter, and rules that rewrite it")


def _choose(name: str, figures: NodeFigures) -> Figure:
    if name == "energy":
        return figures.power_w
    return figures.bandwidth_used_bps if name == "received" else figures.bandwidth_total_bps


def _check_figure(
    name: str, figures: Mapping[str, Figure], found: _Found, settings: TelemetrySettings, now_s: float
) -> Finding:
    ages_s = {node: now_s - one.sampled_s for node, one in figures.items() if one.sampled_s is not None}
    lacking = [node for node in figures if node not in ages_s]
    if lacking:
        # Nodes without exporters are fine, but series that exist should identify a node.
        judge = fail if found.strangers and not ages_s else warn
        message = f"{name}: no series of {name_some(lacking)}; {_LOST[name]}"
        return judge(CHECK, message, _advise(found, settings))
    ahead = [node for node, age_s in ages_s.items() if -age_s > settings.stale_after_s]
    if ahead:
        message = f"{name}: samples of {name_some(ahead)} are in the future and are ignored"
        return warn(CHECK, message, "compare the clocks of Prometheus, its exporters and PerLLM")
    message = f"{name}: all {len(ages_s)} nodes, newest samples {min(ages_s.values()):.0f} to "
    message += f"{max(ages_s.values()):.0f} s old"
    stale = [node for node, age_s in ages_s.items() if age_s > settings.stale_after_s]
    if stale:
        return warn(CHECK, f"{message}; too old: {name_some(stale)}", "check their exporters, or raise stale_after_s")
    return ok(CHECK, message)


def _advise(found: _Found, settings: TelemetrySettings) -> str:
    if not found.series:
        named = " and ".join(dict.fromkeys(feed.setting for feed in found.feeds))
        return f"the query returns nothing: run its exporter, or set {named}"
    if not found.strangers:
        return "run the exporter there"
    return (
        f"{len(found.strangers)} series name no known node in {', '.join(settings.node_labels)}, for example "
        f"{describe_labels(found.strangers[0].labels)}: set config.telemetry.node_labels, or relabel"
    )
