"""The feeds: what is queried, one query each, and what its samples mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from perllm.telemetry.queries import MeterSettings
from perllm.telemetry.settings import TelemetrySettings

QUERIED = "queries"
"""Name of the meter that consists of `telemetry.queries.energy` and `telemetry.queries.power`."""

_LINK_LABELS = ("device", "interface", "ifName", "ifDescr")
# MIG instances and pods that share a GPU repeat its figures, which may have been read a moment later.
_COUNTER_TOLERANCE_S = 5.0
_POWER_TOLERANCE = 0.25


class NodeMetric(StrEnum):
    """The metrics that are read for every node."""

    ENERGY = "energy"
    POWER = "power"
    RECEIVED = "received"
    TRANSMITTED = "transmitted_shared"
    LINK_SPEED = "link_speed"


@dataclass(frozen=True, slots=True)
class Feed:
    """One query for all nodes.

    Attributes:
        metric: What it is about.
        query: PromQL with a window.
        device_labels: Labels that distinguish the devices of a node, the most trusted first.
        unit: What to multiply values by to get joules, watts, bytes or bytes per second.
        meter: The meter that it belongs to; empty for links.
        tolerance: By how much series of one device may differ at the same time.
        relative_tolerance: The same, as a share of the value.
    """

    metric: NodeMetric
    query: str
    device_labels: Sequence[str]
    unit: float = 1.0
    meter: str = ""
    tolerance: float = 0.0
    relative_tolerance: float = 0.0

    @property
    def name(self) -> str:
        """Its name in metrics, log lines and findings."""
        return self.metric.value if self.meter in ("", QUERIED) else f"{self.meter}.{self.metric}"

    @property
    def setting(self) -> str:
        """The setting that has its query."""
        where = f"meters ({self.meter})" if self.meter not in ("", QUERIED) else f"queries.{self.metric}"
        return f"config.telemetry.{where}"

    @property
    def remedy(self) -> str:
        """What to do where its devices cannot be told apart, or are too many."""
        return "set device_labels" if self.meter else f"let {self.setting} select fewer"


def list_meters(settings: TelemetrySettings) -> tuple[MeterSettings, ...]:
    """Return the meters, the preferred ones first."""
    queries = settings.queries
    return settings.meters or (
        MeterSettings(
            name=QUERIED,
            energy=queries.energy,
            energy_unit_j=queries.energy_unit_j,
            power=queries.power,
            power_unit_w=queries.power_unit_w,
        ),
    )


def find_limit_w(meter: MeterSettings, settings: TelemetrySettings) -> float:
    """Return what no device of a meter can draw more than."""
    return meter.max_device_power_w or settings.max_device_power_w


def list_feeds(settings: TelemetrySettings) -> tuple[Feed, ...]:
    """Return all feeds, those of meters first."""
    feeds = [feed for meter in list_meters(settings) for feed in _list_meter_feeds(meter, settings)]
    queries = settings.queries
    for metric, query in (
        (NodeMetric.RECEIVED, queries.received),
        (NodeMetric.TRANSMITTED, queries.transmitted_shared),
        (NodeMetric.LINK_SPEED, queries.link_speed),
    ):
        if query is not None:
            feeds.append(Feed(metric, query, _LINK_LABELS))
    return tuple(feeds)


def _list_meter_feeds(meter: MeterSettings, settings: TelemetrySettings) -> list[Feed]:
    labels = settings.device_labels if meter.device_labels is None else meter.device_labels
    unit_j, unit_w = meter.energy_unit_j, meter.power_unit_w
    tolerance_j = _COUNTER_TOLERANCE_S * find_limit_w(meter, settings)
    feeds = []
    if meter.energy is not None:
        feeds.append(Feed(NodeMetric.ENERGY, meter.energy, labels, unit_j, meter.name, tolerance=tolerance_j))
    if meter.power is not None:
        feeds.append(
            Feed(NodeMetric.POWER, meter.power, labels, unit_w, meter.name, relative_tolerance=_POWER_TOLERANCE)
        )
    return feeds
