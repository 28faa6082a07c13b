"""An uplink: processor sharing among its transfers, with a capacity that varies over time."""

from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from numpy.random import Generator

from perllm_lab.hardware.gpu import Number

REDRAW_S = 5.0
VARIATION = 0.2
BLOCK = 256


@dataclass(frozen=True, slots=True)
class LinkType:
    """The nominal figures of an uplink: bandwidth in bit/s, round trip in seconds."""

    bandwidth_bps: float
    rtt_s: float

    def transfer_s(self, size_bytes: Number) -> Number:
        """Seconds to carry `size_bytes` alone at nominal bandwidth, the round trip that opens it included."""
        return self.rtt_s + size_bytes * 8.0 / self.bandwidth_bps


class Uplink:
    """All transfers share the capacity equally; the capacity is redrawn every 5 s within +-20 % of nominal.

    The capacity of a moment depends on the generator alone, never on the traffic, so two policies compared on the
    same seed see the same network. One event costs O(log transfers): each transfer ends at a fixed amount of
    service per transfer, independent of the others.
    """

    __slots__ = (
        "_active",
        "_capacity_bps",
        "_ends",
        "_epoch_end_s",
        "_factor",
        "_factors",
        "_nominal_bps",
        "_now_s",
        "_rng",
        "_served_bits",
        "next_s",
        "received_bytes",
    )

    def __init__(self, link: LinkType, rng: Generator, *, now_s: float = 0.0) -> None:
        self._nominal_bps = link.bandwidth_bps
        self._factor = 1.0
        self._rng = rng
        self._now_s = now_s
        self._served_bits = 0.0
        self._ends: list[tuple[float, str]] = []
        self._active: dict[str, float] = {}
        self._factors: list[float] = []
        self._epoch_end_s = 0.0
        self._capacity_bps = link.bandwidth_bps
        self.next_s = inf
        self.received_bytes = 0.0

    @property
    def bandwidth_bps(self) -> float:
        """The nominal bandwidth times the factor in force, without the random variation."""
        return self._nominal_bps * self._factor

    def add(self, key: str, size_bytes: int, now_s: float) -> None:
        """Starts a transfer. `now_s` is at most `next_s`."""
        self.elapse(now_s)
        end_bits = self._served_bits + size_bytes * 8.0
        self._active[key] = end_bits
        heappush(self._ends, (end_bits, key))
        self._plan()

    def discard(self, key: str, now_s: float) -> None:
        """Cancels a transfer; unknown keys are ignored."""
        self.elapse(now_s)
        if self._active.pop(key, None) is not None:
            self._plan()

    def set_factor(self, factor: float, now_s: float) -> None:
        """Sets the factor of the capacity from now on; the random variation stays the same."""
        self.elapse(now_s)
        self._factor = factor
        self._enter(int(now_s // REDRAW_S))
        self._plan()

    def fire(self) -> str | None:
        """Advances to `next_s` and returns the transfer that ends there, or None when only the capacity changed."""
        due_s = self.next_s
        self.elapse(due_s)
        if due_s >= self._epoch_end_s:
            self._plan()
            return None
        end_bits, key = heappop(self._ends)
        self._served_bits = end_bits
        del self._active[key]
        self._plan()
        return key

    def elapse(self, now_s: float) -> None:
        """Advances the transfers to `now_s`, at most `next_s`."""
        if self._active:
            bits = self._capacity_bps * (now_s - self._now_s)
            self._served_bits += bits / len(self._active)
            self.received_bytes += bits / 8.0
        self._now_s = now_s

    def _plan(self) -> None:
        ends, active = self._ends, self._active
        while ends and active.get(ends[0][1]) != ends[0][0]:
            heappop(ends)
        if not ends:
            self.next_s = inf
            return
        if self._now_s >= self._epoch_end_s:
            self._enter(int(self._now_s // REDRAW_S))
        left_bits = max(0.0, ends[0][0] - self._served_bits) * len(active)
        self.next_s = min(self._now_s + left_bits / self._capacity_bps, self._epoch_end_s)

    def _enter(self, epoch: int) -> None:
        while epoch >= len(self._factors):
            self._factors += self._rng.uniform(1.0 - VARIATION, 1.0 + VARIATION, BLOCK).tolist()
        self._epoch_end_s = (epoch + 1) * REDRAW_S
        self._capacity_bps = self._nominal_bps * self._factor * self._factors[epoch]
