import asyncio
from collections.abc import Sequence
from random import Random

import pytest
from prometheus_client import CollectorRegistry

from perllm.costs.metrics import MAX_PAYERS, CostMetrics
from perllm.costs.outlook import CostOutlook, TariffBook
from perllm.costs.service import EnergyCosts, Expense
from perllm.costs.settings import CostSettings
from perllm.guard import Guard
from perllm.telemetry.series import Series
from perllm.telemetry.source import TelemetryError
from unit.placement.cluster_of import make_node

HOUR_S = 3600.0
NOW_S = 1000 * HOUR_S
QUERIED = {"weights": {"energy": 0, "money": 1}, "money": [{"per_kwh": 0.5, "query": "price"}]}


class Prometheus:
    """Answers every query with the same series; without any, it fails."""

    def __init__(self, *series: Sequence[tuple[float, float]]) -> None:
        self.series = series
        self.asked: list[str] = []

    async def query(self, promql: str) -> Sequence[Series]:
        self.asked.append(promql)
        if not self.series:
            raise TelemetryError("down")
        return [Series({}, tuple(samples)) for samples in self.series]


class Costs:
    def __init__(self, settings: object, source: Prometheus | None = None) -> None:
        self.registry = CollectorRegistry()
        self.nodes = {"a": make_node("a"), "b": make_node("b")}
        self.put: list[CostOutlook] = []
        self.now_s = NOW_S
        self.costs = EnergyCosts(
            TariffBook.build(CostSettings.model_validate(settings)),
            source or Prometheus(),
            lambda: self.nodes,
            self.put.append,
            metrics=CostMetrics(self.registry),
            guard=Guard(lambda _: None, Random(0)),
            unix_now=lambda: self.now_s,
        )

    def show(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


class TestCosts:
    def test_are_passed_on_once_in_a_quarter_of_an_hour(self) -> None:
        on = Costs({"weights": {"money": 1}, "money": [{"per_kwh": 0.2}]})
        for on.now_s in (NOW_S, NOW_S + 60, NOW_S + 901):
            on.costs.refresh()
        assert [one.begin_s for one in on.put] == [NOW_S, NOW_S + 900]
        assert set(on.put[0].series[0]) == {1.0}

    def test_of_tariffs_without_weights_change_no_decision(self) -> None:
        on = Costs({"money": [{"per_kwh": 0.2}]})
        on.costs.refresh()
        assert on.put == []
        assert on.show("perllm_node_money_per_kwh", node="a") == 0.2

    def test_of_tasks_are_counted_by_namespace(self) -> None:
        on = Costs({"money": [{"per_kwh": 0.2}], "carbon": [{"per_kwh": -300}]})
        assert on.costs.charge("lab", "a", NOW_S, 3.6e6) == Expense(money=0.2, grams=-300)
        assert on.costs.charge("lab", "gone", NOW_S, 3.6e6) == Expense()
        assert on.show("perllm_cost_money_total", by="namespace", payer="lab") == pytest.approx(0.2)
        assert on.show("perllm_cost_carbon_grams_total", by="namespace", payer="lab") == 0.0

    def test_of_many_namespaces_have_a_bounded_number_of_series(self) -> None:
        on = Costs({"money": [{"per_kwh": 0.2}]})
        for number in range(MAX_PAYERS + 2):
            on.costs.charge(f"n{number}", "a", NOW_S, 3.6e6)
        assert on.show("perllm_cost_money_total", by="namespace", payer="other") == pytest.approx(0.4)

    def test_of_nodes_that_have_left_are_shown_no_longer(self) -> None:
        on = Costs({"money": [{"per_kwh": 0.2}]})
        on.costs.refresh()
        del on.nodes["b"]
        on.costs.refresh()
        assert on.show("perllm_node_money_per_kwh", node="b") is None


class TestQueries:
    def test_take_the_last_sample_for_the_present(self) -> None:
        source = Prometheus([(NOW_S - HOUR_S, 0.1), (NOW_S, 0.3)])
        on = Costs(QUERIED, source)
        asyncio.run(on.costs.query())
        on.costs.refresh()
        assert source.asked == ["(price)[7d:15m]"]
        assert on.show("perllm_node_money_per_kwh", node="a") == pytest.approx(0.3)
        assert on.show("perllm_tariff_stale", unit="money", tariff="0") == 0.0

    def test_go_on_when_the_exporter_gets_another_pod_and_so_other_labels(self) -> None:
        on = Costs(QUERIED, Prometheus([(NOW_S, 0.3)], [(NOW_S - 2 * HOUR_S, 0.1), (NOW_S - HOUR_S, 0.2)]))
        asyncio.run(on.costs.query())
        assert on.costs.charge("lab", "a", NOW_S, 3.6e6).money == pytest.approx(0.3)
        assert on.costs.charge("lab", "a", NOW_S - HOUR_S, 3.6e6).money == pytest.approx(0.2)

    @pytest.mark.parametrize("series", [[], [[(NOW_S - HOUR_S, 1.0), (NOW_S, 1.0)], [(NOW_S, 2.0)]]])
    def test_without_one_series_leave_what_was_known_and_say_so(
        self, series: list[list[tuple[float, float]]], caplog: pytest.LogCaptureFixture
    ) -> None:
        on = Costs(QUERIED, Prometheus(*series))
        asyncio.run(on.costs.query())
        on.costs.refresh()
        assert on.show("perllm_node_money_per_kwh", node="a") == 0.5
        assert on.show("perllm_tariff_stale", unit="money", tariff="0") == 1.0
        assert "no figure of costs.money[0]" in caplog.text
