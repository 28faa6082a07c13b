"""Metrics of what energy costs."""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge

from perllm.energy.bill import BY_NAMESPACE, MAX_PAYERS
from perllm.label_values import LabelValues


class CostMetrics:
    """The metrics of costs, in the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.money = Counter(
            "perllm_cost_money",
            "Money that the energy of a payer's tasks cost.",
            ["by", "payer"],
            registry=registry,
        )
        self.grams = Counter(
            "perllm_cost_carbon_grams",
            "Grams of CO2 of the energy of a payer's tasks.",
            ["by", "payer"],
            registry=registry,
        )
        self.node_money = Gauge(
            "perllm_node_money_per_kwh", "What a kilowatt hour costs on a node now.", ["node"], registry=registry
        )
        self.node_grams = Gauge(
            "perllm_node_carbon_grams_per_kwh",
            "Grams of CO2 of a kilowatt hour on a node now.",
            ["node"],
            registry=registry,
        )
        self.node_cost = Gauge(
            "perllm_node_joule_cost",
            "What a joule costs on a node now, relative to the mean of all nodes and of the next day.",
            ["node"],
            registry=registry,
        )
        self.stale = Gauge(
            "perllm_tariff_stale",
            "1 if the query of a tariff has no current figure, so that the pattern of earlier days is used.",
            ["unit", "tariff"],
            registry=registry,
        )
        self.deviation = Gauge(
            "perllm_tariff_forecast_deviation",
            "Standard deviation of what a tariff is expected to be, mean over the next day; 0 for schedules.",
            ["unit", "tariff"],
            registry=registry,
        )
        self._payers = LabelValues(MAX_PAYERS)

    def count(self, namespace: str, money: float | None, grams: float | None) -> None:
        """Count what the energy of a task has cost; a counter cannot fall, so less than nothing counts as nothing."""
        payer = self._payers.bound(namespace)
        for counter, amount in ((self.money, money), (self.grams, grams)):
            if amount is not None:
                counter.labels(BY_NAMESPACE, payer).inc(max(amount, 0.0))

    def remove(self, nodes: Collection[str]) -> None:
        """Remove nodes that are gone."""
        for node in nodes:
            for gauge in (self.node_money, self.node_grams, self.node_cost):
                gauge.remove(node)
