"""Checks whether Prometheus has the figures that PerLLM queries."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
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


@dataclass(frozen=True, slots=True)
class _FigureKind:
    """A figure that every node should have.

    Attributes:
        name: its name.
        metrics: what it is computed from.
        choose: returns it.
        lost: what follows where it is missing.
    """

    name: str
    metrics: tuple[NodeMetric, ...]
    choose: Callable[[NodeFigures], Figure]
    lost: str


_KINDS = (
    _FigureKind(
        "energy",
        (NodeMetric.ENERGY, NodeMetric.POWER),
        attrgetter("power_w"),
        "the energy of tasks there is neither measured nor learned",
    ),
    _FigureKind(
        "received",
        (NodeMetric.RECEIVED,),
        attrgetter("bandwidth_used_bps"),
        "their uplinks are assumed to be idle",
    ),
    _FigureKind(
        "link_speed",
        (NodeMetric.LINK_SPEED,),
        attrgetter("bandwidth_total_bps"),
        "config.nodes.default_bandwidth_mbit_s is assumed there",
    ),
)


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
    for kind in _KINDS:
        feeds = [feed for feed in list_feeds(settings) if feed.metric in kind.metrics and feed not in answers.errors]
        if feeds:
            unknown = [series for feed in feeds for series in strangers.get(feed, ())]
            advice = _advise(feeds, any(answers.series.get(feed) for feed in feeds), unknown, settings)
            chosen = {node: kind.choose(one) for node, one in figures.items()}
            yield _check_figure(kind, chosen, settings, now_s, judge=fail if unknown else warn, advice=advice)
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


def _check_figure(
    kind: _FigureKind,
    figures: Mapping[str, Figure],
    settings: TelemetrySettings,
    now_s: float,
    *,
    judge: Callable[[str, str, str], Finding],
    advice: str,
) -> Finding:
    """Check one figure of all nodes; ``judge`` and ``advice`` are for the case that no node has it."""
    ages_s = {node: now_s - one.sampled_s for node, one in figures.items() if one.sampled_s is not None}
    lacking = [node for node in figures if node not in ages_s]
    if lacking:
        message = f"{kind.name}: no usable series of {name_some(lacking)}; {kind.lost}"
        # Nodes without exporters are fine, but series that exist should identify a node.
        return (warn if ages_s else judge)(CHECK, message, advice)
    ahead = [node for node, age_s in ages_s.items() if -age_s > settings.stale_after_s]
    if ahead:
        message = f"{kind.name}: samples of {name_some(ahead)} are in the future and are ignored"
        return warn(CHECK, message, "compare the clocks of Prometheus, its exporters and PerLLM")
    youngest_s, oldest_s = min(ages_s.values()), max(ages_s.values())
    message = f"{kind.name}: all {len(ages_s)} nodes, newest samples {youngest_s:.0f} to {oldest_s:.0f} s old"
    stale = [node for node, age_s in ages_s.items() if age_s > settings.stale_after_s]
    if stale:
        return warn(CHECK, f"{message}; too old: {name_some(stale)}", "check their exporters, or raise stale_after_s")
    return ok(CHECK, message)


def _advise(feeds: Sequence[Feed], has_series: bool, unknown: Sequence[Series], settings: TelemetrySettings) -> str:
    if not has_series:
        named = " and ".join(dict.fromkeys(feed.setting for feed in feeds))
        return f"the query returns nothing: run its exporter, or set {named}"
    if not unknown:
        return "run the exporter there"
    return (
        f"{len(unknown)} series name no known node in {', '.join(settings.node_labels)}, for example "
        f"{describe_labels(unknown[0].labels)}: set config.telemetry.node_labels, or relabel"
    )
