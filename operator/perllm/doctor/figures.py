"""Checks whether all nodes have the figures that PerLLM computes from the answers of Prometheus."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from perllm.doctor.finding import Finding, fail, name_some, ok, warn
from perllm.telemetry.feeds import Feed, NodeMetric, list_feeds
from perllm.telemetry.readings import Readings
from perllm.telemetry.series import Series, describe_labels
from perllm.telemetry.settings import TelemetrySettings
from perllm.telemetry.snapshot import Figure, NodeFigures

CHECK = "Prometheus"

AHEAD_S = 3.0
"""A sample that is further in the future is by another clock, since queries take part of a second."""


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


@dataclass(slots=True)
class Evidence:
    """What was found in the answers, by feed.

    Attributes:
        settings: of the queries.
        readings: the samples that can be used.
        nodes: the nodes that series belong to, usable or not.
        strangers: series that belong to no known node.
    """

    settings: TelemetrySettings
    readings: Readings
    nodes: dict[Feed, set[str]] = field(default_factory=dict)
    strangers: dict[Feed, Sequence[Series]] = field(default_factory=dict)


def check_figures(evidence: Evidence, fleet: Collection[str], now_s: float) -> Iterator[Finding]:
    """Check the figures of all nodes, except those whose queries were not answered."""
    figures = {node: evidence.readings.figures(node, now_s) for node in sorted(fleet)}
    for kind in _KINDS:
        feeds = [feed for feed in list_feeds(evidence.settings) if feed.metric in kind.metrics]
        answered = [feed for feed in feeds if feed in evidence.nodes]
        if answered:
            chosen = {node: kind.choose(one) for node, one in figures.items()}
            yield _check_figure(kind, chosen, answered, evidence, now_s)


def _check_figure(
    kind: _FigureKind, figures: Mapping[str, Figure], feeds: Sequence[Feed], evidence: Evidence, now_s: float
) -> Finding:
    stale_after_s = evidence.settings.stale_after_s
    ages_s = {node: now_s - one.sampled_s for node, one in figures.items() if one.sampled_s is not None}
    lacking = [node for node in figures if node not in ages_s]
    if lacking:
        # Nodes without exporters are fine, but series that exist should identify a node.
        judge = fail if not ages_s and any(evidence.strangers[feed] for feed in feeds) else warn
        message = f"{kind.name}: no usable series of {name_some(lacking)}; {kind.lost}"
        return judge(CHECK, message, _advise(lacking, feeds, evidence))
    ahead = [node for node, age_s in ages_s.items() if -age_s > AHEAD_S]
    if ahead:
        most_s = -min(ages_s.values())
        follows = "are ignored" if most_s > stale_after_s else "count for other moments than theirs"
        message = f"{kind.name}: samples of {name_some(ahead)} are up to {most_s:.0f} s in the future and {follows}"
        return warn(CHECK, message, "compare the clocks of Prometheus, its exporters and PerLLM")
    youngest_s, oldest_s = min(ages_s.values()), max(ages_s.values())
    message = f"{kind.name}: all {len(ages_s)} nodes, newest samples {youngest_s:.0f} to {oldest_s:.0f} s old"
    stale = [node for node, age_s in ages_s.items() if age_s > stale_after_s]
    if stale:
        return warn(CHECK, f"{message}; too old: {name_some(stale)}", "check their exporters, or raise stale_after_s")
    return ok(CHECK, message)


def _advise(lacking: Collection[str], feeds: Sequence[Feed], evidence: Evidence) -> str:
    strangers = [series for feed in feeds for series in evidence.strangers[feed]]
    known = {node for feed in feeds for node in evidence.nodes[feed]}
    if not known.isdisjoint(lacking):
        return "their series cannot be used: see the other warnings"
    if not known and not strangers:
        named = " and ".join(dict.fromkeys(feed.setting for feed in feeds))
        return f"the query returns nothing: run its exporter, or set {named}"
    if not strangers:
        return "run the exporter there"
    return (
        f"{len(strangers)} series name no known node in {', '.join(evidence.settings.node_labels)}, for example "
        f"{describe_labels(strangers[0].labels)}: set config.telemetry.node_labels, or relabel"
    )
