"""The figures of all nodes at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Quality(StrEnum):
    """Whether a figure may be trusted."""

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one node.

    Attributes:
        value: None if missing, never zero instead.
        sampled_s: When it was sampled, in seconds since the epoch; None if missing.
        quality: Fresh, stale (the last known value) or missing.
    """

    value: float | None
    sampled_s: float | None
    quality: Quality

    @property
    def fresh_value(self) -> float | None:
        """The value if it is fresh; None otherwise."""
        return self.value if self.quality is Quality.FRESH else None


MISSING = Figure(None, None, Quality.MISSING)


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """The figures of one node.

    Attributes:
        power_w: Watts of all that its energy is measured of.
        bandwidth_total_bps: Bits per second that its uplink can carry.
        bandwidth_used_bps: Bits per second received on the uplink, since payloads travel in this direction; both
            directions where they share the bandwidth.
    """

    power_w: Figure = MISSING
    bandwidth_total_bps: Figure = MISSING
    bandwidth_used_bps: Figure = MISSING

    def figures(self) -> Mapping[str, Figure]:
        """Return the figures by short name."""
        return {
            "power": self.power_w,
            "bandwidth_total": self.bandwidth_total_bps,
            "bandwidth_used": self.bandwidth_used_bps,
        }

    def age_s(self, now_s: float) -> float | None:
        """Return the age of the oldest figure in seconds; None if all are missing."""
        times_s = [figure.sampled_s for figure in self.figures().values() if figure.sampled_s is not None]
        return max(0.0, now_s - min(times_s)) if times_s else None


UNKNOWN_NODE = NodeFigures()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures of all nodes."""

    nodes: Mapping[str, NodeFigures]

    def of(self, node: str) -> NodeFigures:
        """Return the figures of a node; all missing if the node is unknown."""
        return self.nodes.get(node, UNKNOWN_NODE)
