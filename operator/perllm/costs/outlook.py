"""What joules are expected to cost on each node, relative to the mean of all nodes and of the next day."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from perllm.cluster.node import Node
from perllm.costs.settings import CostSettings
from perllm.costs.tariff import Tariff, find_tariff

STEP_S = 900.0
"""Length of the steps in which costs are known."""

STEPS = 100
"""A day, the longest deadline, and an hour in which nothing new may be known."""


@dataclass(frozen=True, slots=True)
class CostOutlook:
    """What joules are expected to cost.

    Attributes:
        begin_s: Unix time at which the first step begins.
        series: relative costs by step; all of one length.
        of_node: which of the series a node has.
    """

    begin_s: float
    series: tuple[tuple[float, ...], ...]
    of_node: dict[str, int]


@dataclass(frozen=True, slots=True)
class TariffBook:
    """The tariffs of money and of carbon, in order."""

    settings: CostSettings
    money: Sequence[Tariff]
    carbon: Sequence[Tariff]

    @classmethod
    def build(cls, settings: CostSettings) -> "TariffBook":
        """Return the tariffs of a configuration; nothing was queried yet."""
        return cls(settings, list(map(Tariff, settings.money)), list(map(Tariff, settings.carbon)))

    def find(self, node: Node) -> tuple[Tariff | None, Tariff | None]:
        """Return the tariffs of a node, of money and of carbon; None where there are none at all."""
        money, carbon = find_tariff(self.money, node), find_tariff(self.carbon, node)
        return None if money is None else self.money[money], None if carbon is None else self.carbon[carbon]


def forecast_costs(book: TariffBook, nodes: Collection[Node], now_s: float) -> CostOutlook:
    """Return what joules are expected to cost; nodes with the same tariffs share a series.

    Without any cost above 0, no series is returned, since nothing can be relative to nothing.
    """
    begin_s = now_s // STEP_S * STEP_S
    times_s = [begin_s + step * STEP_S for step in range(STEPS)]
    places: dict[tuple[int | None, int | None], int] = {}
    of_node: dict[str, int] = {}
    for node in nodes:
        pair = find_tariff(book.money, node), find_tariff(book.carbon, node)
        of_node[node.name] = places.setdefault(pair, len(places))
    costs = [_weigh(book, pair, times_s) for pair in places]
    counts = np.bincount(list(of_node.values()), minlength=len(places)) if of_node else np.zeros(0)
    mean = sum(count * one.mean() for count, one in zip(counts, map(np.array, costs), strict=True)) / max(len(nodes), 1)
    if not mean > 0:
        return CostOutlook(begin_s, (), {})
    series = tuple(tuple(round(cost / mean, 6) for cost in one) for one in costs)
    return CostOutlook(begin_s, series, of_node)


def _weigh(book: TariffBook, pair: tuple[int | None, int | None], times_s: Sequence[float]) -> list[float]:
    """Return what a kilowatt hour costs at each time, from now on, under a pair of tariffs, of money and of carbon."""
    money = [0.0] * len(times_s) if pair[0] is None else book.money[pair[0]].expect(times_s).tolist()
    grams = [0.0] * len(times_s) if pair[1] is None else book.carbon[pair[1]].expect(times_s).tolist()
    return [book.settings.weights.weigh(*both) for both in zip(money, grams, strict=True)]
