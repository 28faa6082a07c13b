"""Keeps tariffs current, and passes on what joules cost."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter

from perllm.cluster.node import Node
from perllm.costs.forecast import HOUR_S, HOURS
from perllm.costs.metrics import CostMetrics
from perllm.costs.outlook import CostOutlook, TariffBook, forecast_costs
from perllm.costs.tariff import Tariff
from perllm.guard import Guard
from perllm.telemetry.series import Samples
from perllm.telemetry.source import MetricSource, TelemetryError
from perllm.text import clean_line

log = logging.getLogger(__name__)

INTERVAL_S = 10.0
QUERY_INTERVAL_S = 300.0
HISTORY = "[7d:15m]"
_STEP_S = 900.0
J_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Expense:
    """What some energy cost; None where no tariff is configured."""

    money: float | None = None
    grams: float | None = None


Charge = Callable[[str, str, float, float], Expense]


def charge_nothing(namespace: str, node: str, at_s: float, energy_j: float) -> Expense:
    """Return that no tariff is configured."""
    return Expense()


class EnergyCosts:
    """What energy costs on the nodes.

    Args:
        book: the tariffs.
        source: answers queries.
        nodes: returns the current nodes by name.
        put: takes what joules cost, whenever that has changed.
        metrics: show it.
        guard: contains failures about single tariffs.
        unix_now: Unix time in seconds.
    """

    def __init__(
        self,
        book: TariffBook,
        source: MetricSource,
        nodes: Callable[[], Mapping[str, Node]],
        put: Callable[[CostOutlook], None],
        *,
        metrics: CostMetrics,
        guard: Guard,
        unix_now: Callable[[], float],
    ) -> None:
        self._book = book
        self._source = source
        self._nodes = nodes
        self._put = put
        self._metrics = metrics
        self._guard = guard
        self._unix_now = unix_now
        self._known: CostOutlook | None = None
        self._shown: set[str] = set()
        self._tariffs = {
            (unit, place): tariff
            for unit, tariffs in (("money", book.money), ("carbon", book.carbon))
            for place, tariff in enumerate(tariffs)
        }
        self._faults: dict[tuple[str, int], str] = {}

    async def run(self) -> None:
        """Query tariffs and pass on what joules cost, until cancelled."""
        due_s = -float("inf")
        while True:
            now_s = asyncio.get_running_loop().time()
            if now_s >= due_s:
                await self.query()
                due_s = now_s + QUERY_INTERVAL_S
            self._guard.run("upkeep", "of costs", self.refresh, again=False)
            await asyncio.sleep(INTERVAL_S)

    async def query(self) -> None:
        """Query every tariff that has a query; of those that fail, what was known counts."""
        for (unit, place), tariff in self._tariffs.items():
            if tariff.settings.query is None:
                continue
            fault = await self._query(tariff)
            known = self._faults.pop((unit, place), "")
            if fault:
                self._faults[unit, place] = fault
            if fault and not known:
                log.warning("no figure of costs.%s[%d]: %s", unit, place, clean_line(fault))
            elif known and not fault:
                log.info("costs.%s[%d] has figures again", unit, place)

    def refresh(self) -> None:
        """Pass on what joules cost if that has changed, and show it."""
        now_s, nodes = self._unix_now(), self._nodes()
        for (unit, place), tariff in self._tariffs.items():
            deviations = tariff.forecast([now_s + hour * HOUR_S for hour in range(HOURS)])[1]
            self._metrics.stale.labels(unit, str(place)).set(float(not tariff.is_fresh(now_s)))
            self._metrics.deviation.labels(unit, str(place)).set(float(deviations.mean()))
        outlook = forecast_costs(self._book, list(nodes.values()), now_s)
        if outlook != self._known and not self._book.settings.weights.is_energy_alone:
            self._put(outlook)
        self._known = outlook
        self._show(nodes, outlook, now_s)

    def charge(self, namespace: str, node: str, at_s: float, energy_j: float) -> Expense:
        """Count and return what energy cost that a task used on a node about a Unix time; nothing if the node is gone.

        Args:
            namespace: of the task.
            node: where it ran.
            at_s: the middle of its run.
            energy_j: what it used.
        """
        known = self._nodes().get(node)
        if known is None:
            return Expense()
        tariffs = self._book.find(known)
        money, grams = (None if one is None else one.find_past(at_s) * energy_j / J_PER_KWH for one in tariffs)
        self._metrics.count(namespace, money, grams)
        return Expense(money, grams)

    async def _query(self, tariff: Tariff) -> str:
        """Query a tariff; return why it has no figure, empty if it has one."""
        try:
            found = await self._source.query(f"({tariff.settings.query}){HISTORY}")
        except TelemetryError as error:
            return str(error)
        series = sorted((one.samples for one in found if one.samples), key=itemgetter(0))
        if not series or not _follow_each_other(series):
            return f"{tariff.settings.query!r} returned {len(series)} series at a time instead of one"
        tariff.learn(sorted(dict(chain.from_iterable(series)).items()))
        return ""

    def _show(self, nodes: Mapping[str, Node], outlook: CostOutlook, now_s: float) -> None:
        metrics = self._metrics
        for name, node in nodes.items():
            money, carbon = self._book.find(node)
            if money is not None:
                metrics.node_money.labels(name).set(money.expect_now(now_s))
            if carbon is not None:
                metrics.node_grams.labels(name).set(carbon.expect_now(now_s))
            if name in outlook.of_node:
                metrics.node_cost.labels(name).set(outlook.series[outlook.of_node[name]][0])
        metrics.remove(self._shown - nodes.keys())
        self._shown = set(nodes)


def _follow_each_other(series: Sequence[Samples]) -> bool:
    """Return whether, of series in the order of their begins, each takes over from the one before.

    The labels of an exporter change with its pod. Both pods may have been there for a moment, but not any more.
    """
    ends_s = [samples[-1][0] for samples in series]
    is_followed = all(end_s <= after[0][0] + _STEP_S for end_s, after in zip(ends_s, series[1:], strict=False))
    return is_followed and ends_s.count(max(ends_s)) == 1
