"""Checks the answers of Prometheus to the queries that PerLLM makes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from perllm.doctor.figures import CHECK as CHECK
from perllm.doctor.figures import Evidence, check_figures
from perllm.doctor.finding import Finding, fail, name_some, warn
from perllm.doctor.meters import check_devices
from perllm.telemetry.assignment import SeriesAssignment
from perllm.telemetry.feeds import Feed
from perllm.telemetry.mapping import NodeMapping
from perllm.telemetry.readings import Readings
from perllm.telemetry.series import Series
from perllm.telemetry.settings import TelemetrySettings


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
    evidence = Evidence(settings, Readings(settings))
    for feed, found in answers.series.items():
        yield from _collect(evidence, feed, found, mapping, now_s)
    yield from check_figures(evidence, nodes.fleet, now_s)
    for message, advice in check_devices(evidence.readings, settings, nodes.fleet):
        yield warn(CHECK, message, advice)


def _explain_unreachable(error: str, settings: TelemetrySettings, *, is_inside: bool) -> Finding:
    host = urlsplit(settings.url).hostname or ""
    if not is_inside and (host.endswith((".svc", ".cluster.local")) or "." not in host):
        advice = "run the doctor in the operator's pod (perllm doctor --help shows how), or pass --prometheus URL"
        return warn(CHECK, f"{host} can only be reached from inside the cluster", advice)
    return fail(CHECK, error, "set config.telemetry.url and token_file, or networkPolicy.prometheus")


def _check_addresses(mapping: NodeMapping, nodes: Nodes) -> Iterator[Finding]:
    shared = {address: names for address, names in mapping.shared.items() if not set(names).isdisjoint(nodes.fleet)}
    for address, names in sorted(shared.items())[:1]:
        message = f"{len(shared)} addresses are those of several nodes and identify none: {address} is of "
        yield warn(CHECK, f"{message}{name_some(names)}", "let Prometheus add a label with the node's name: node")


def _collect(
    evidence: Evidence, feed: Feed, found: Sequence[Series], mapping: NodeMapping, now_s: float
) -> Iterator[Finding]:
    """Add the series of a feed to the evidence; yield a finding if some of them cannot be used."""
    assignment, history = SeriesAssignment(feed, mapping), evidence.readings.find_history(feed)
    for series in found:
        assignment.add(series)
    evidence.nodes[feed], evidence.strangers[feed] = set(), assignment.unmapped
    faults = assignment.faults
    for device in assignment.list_devices():
        evidence.nodes[feed].add(device.node)
        history.merge(device.node, device.device, device.samples, now_s)
        faults += [device.fault] if device.fault else []
    if faults:
        message = f"{feed.name}: {len(faults)} series cannot be used, for example {faults[0]}"
        yield warn(CHECK, message, "check the output of their exporter, and rules that rewrite it")
