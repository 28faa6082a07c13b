"""Tariffs at work: which one a node has, and what it says of a moment."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter

import numpy as np

from perllm.cluster.node import Node
from perllm.costs.forecast import HourPattern, find_hours, find_pattern
from perllm.costs.settings import TariffSettings
from perllm.policy.problem import FloatArray

STALE_AFTER_S = 3600.0
"""From this age on, a figure of a query is not taken for the present one: the pattern of the day alone counts."""


@dataclass(frozen=True, slots=True)
class _Figures:
    pattern: HourPattern
    samples: Sequence[tuple[float, float]]

    @property
    def at_s(self) -> float:
        return self.samples[-1][0]

    @property
    def present(self) -> float:
        return self.samples[-1][1]


class Tariff:
    """What a kilowatt hour costs on some nodes.

    A query that has not answered yet leaves the configured figure; one that no longer does, the pattern of the days
    before.
    """

    def __init__(self, settings: TariffSettings) -> None:
        self.settings = settings
        self._zone = settings.zone
        self._known: _Figures | None = None

    def applies_to(self, node: Node) -> bool:
        """Whether a node has this tariff, unless an earlier one applies."""
        wanted = self.settings.match_labels.items()
        in_tier = not self.settings.tiers or node.tier in self.settings.tiers
        return in_tier and all(node.labels.get(label) == value for label, value in wanted)

    def is_fresh(self, now_s: float) -> bool:
        """Whether its figure is current; always, without a query."""
        if self.settings.query is None:
            return True
        return self._known is not None and now_s - self._known.at_s <= STALE_AFTER_S

    def learn(self, samples: Sequence[tuple[float, float]]) -> None:
        """Take in what the query returned: pairs of Unix time and figure, in order of time; none changes nothing."""
        if samples:
            scaled = [(time_s, value * self.settings.query_unit) for time_s, value in samples]
            self._known = _Figures(find_pattern(scaled, self._zone), scaled)

    def forecast(self, times_s: Sequence[float]) -> tuple[FloatArray, FloatArray]:
        """Return what a kilowatt hour costs at Unix times, ascending from now on, and the standard deviations of that.

        Both have shape (n,). A schedule is known, so its deviations are 0.
        """
        known = self._known
        if known is None:
            return np.array([self._find_scheduled(time_s) for time_s in times_s]), np.zeros(len(times_s))
        if not self.is_fresh(times_s[0]):
            hours = find_hours(times_s, self._zone)
            return known.pattern.means[hours], known.pattern.spreads[hours]
        return known.pattern.forecast(known.present, times_s)

    def expect(self, times_s: Sequence[float]) -> FloatArray:
        """Return what a kilowatt hour is expected to cost at Unix times, ascending from now on; shape (n,)."""
        return self.forecast(times_s)[0]

    def expect_now(self, now_s: float) -> float:
        """Return what a kilowatt hour costs now."""
        return float(self.expect([now_s])[0])

    def find_past(self, time_s: float) -> float:
        """Return what a kilowatt hour cost at a Unix time that has passed."""
        known = self._known
        if known is None or time_s >= known.at_s:
            return self.expect_now(time_s)
        place = bisect_right(known.samples, time_s, key=itemgetter(0)) - 1
        if place < 0 or time_s - known.samples[place][0] > STALE_AFTER_S:
            return float(known.pattern.means[find_hours([time_s], self._zone)][0])
        return known.samples[place][1]

    def _find_scheduled(self, time_s: float) -> float:
        local = datetime.fromtimestamp(time_s, self._zone)
        periods = self.settings.periods
        holding = (one.per_kwh for one in periods if one.holds(local.weekday(), local.hour))
        return next(holding, self.settings.per_kwh)


def find_tariff(tariffs: Sequence[Tariff], node: Node) -> int | None:
    """Return the position of the tariff of a node: the first that applies; None without any."""
    return next((place for place, tariff in enumerate(tariffs) if tariff.applies_to(node)), None)
