from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from pydantic import ValidationError

from perllm.api.task import Tier
from perllm.config import Config
from perllm.costs.outlook import TariffBook, forecast_costs
from perllm.costs.settings import CostSettings, TariffPeriod, TariffSettings
from perllm.costs.tariff import STALE_AFTER_S, Tariff
from unit.placement.cluster_of import make_node

FRIDAY = datetime(2026, 6, 5, tzinfo=ZoneInfo("Europe/Berlin"))
NIGHT = TariffPeriod(from_hour=22, to_hour=6, days=("Fri",), per_kwh=0.1)
HOUR_S = 3600.0


def at(hour: int, day: int = 5) -> float:
    return FRIDAY.replace(day=day, hour=hour).timestamp()


class TestTariffs:
    @pytest.mark.parametrize(
        ("hour", "day", "expected"), [(21, 5, 0.3), (22, 5, 0.1), (5, 6, 0.1), (6, 6, 0.3), (22, 6, 0.3), (3, 5, 0.3)]
    )
    def test_a_period_holds_from_the_days_on_which_it_begins(self, hour: int, day: int, expected: float) -> None:
        tariff = Tariff(TariffSettings(per_kwh=0.3, time_zone="Europe/Berlin", periods=(NIGHT,)))
        assert tariff.expect_now(at(hour, day)) == expected

    def test_the_first_tariff_that_applies_counts(self) -> None:
        edge, berlin = make_node("e", Tier.EDGE), make_node("b", Tier.CLOUD, labels={"zone": "berlin"})
        money = [
            {"tiers": ["edge"], "per_kwh": 1},
            {"match_labels": {"zone": "berlin"}, "per_kwh": 2},
            {"per_kwh": 3},
        ]
        book = TariffBook.build(CostSettings.model_validate({"weights": {"energy": 0, "money": 1}, "money": money}))
        nodes = [edge, berlin, make_node("c", Tier.CLOUD)]
        outlook = forecast_costs(book, nodes, at(0))
        assert [outlook.series[outlook.of_node[node.name]][0] for node in nodes] == pytest.approx([0.5, 1.0, 1.5])

    def test_a_weighted_sum_is_a_price_of_carbon(self) -> None:
        weights = CostSettings.model_validate(
            {
                "weights": {"energy": 0, "money": 1, "carbon": 0.1},
                "money": [{"per_kwh": 0.3}],
                "carbon": [{"per_kwh": 1}],
            }
        ).weights
        assert weights.weigh(0.3, 400.0) == pytest.approx(0.34)

    def test_costs_are_never_negative_though_prices_are(self) -> None:
        assert CostSettings().weights.model_copy(update={"energy": 0.0, "money": 1.0}).weigh(-0.2, 0.0) == 0.0


class TestQueries:
    def tariff(self) -> Tariff:
        return Tariff(TariffSettings(per_kwh=0.3, query="price", query_unit=0.001))

    def samples(self, now_s: float) -> list[tuple[float, float]]:
        """Return a week of 100 a megawatt hour by night and 300 by day, and 200 at the moment."""
        times_s = [now_s - k * HOUR_S for k in range(7 * 24, -1, -1)]
        figures = [100.0 if datetime.fromtimestamp(time_s, UTC).hour < 6 else 300.0 for time_s in times_s]
        return list(zip(times_s, [*figures[:-1], 200.0], strict=True))

    def test_the_configured_figure_holds_until_the_first_answer(self) -> None:
        tariff = self.tariff()
        assert tariff.expect_now(at(12)) == 0.3
        assert not tariff.is_fresh(at(12))

    def test_the_present_figure_counts_now_and_the_pattern_of_the_day_later(self) -> None:
        tariff, now_s = self.tariff(), datetime(2026, 6, 5, 12, tzinfo=UTC).timestamp()
        tariff.learn(self.samples(now_s))
        assert tariff.expect_now(now_s) == pytest.approx(0.2)
        assert tariff.expect([now_s, now_s + 14 * HOUR_S])[1] == pytest.approx(0.1, abs=0.01)

    def test_what_has_passed_costs_what_it_did_then(self) -> None:
        tariff, now_s = self.tariff(), datetime(2026, 6, 5, 12, tzinfo=UTC).timestamp()
        tariff.learn(self.samples(now_s))
        assert tariff.find_past(now_s - 8 * HOUR_S) == pytest.approx(0.1)
        assert tariff.find_past(now_s - 0.5 * HOUR_S) == pytest.approx(0.3)
        assert tariff.find_past(now_s + 10) == pytest.approx(0.2)
        assert tariff.find_past(now_s - 9 * 24 * HOUR_S) == pytest.approx(0.3, abs=0.02)

    def test_a_schedule_says_what_has_passed(self) -> None:
        periods = [{"from_hour": 22, "to_hour": 6, "per_kwh": 0.1}]
        tariff = Tariff(TariffSettings.model_validate({"per_kwh": 0.3, "periods": periods}))
        assert (tariff.find_past(at(3)), tariff.find_past(at(12))) == (0.1, 0.3)

    def test_without_a_fresh_figure_only_the_pattern_counts(self) -> None:
        tariff, now_s = self.tariff(), datetime(2026, 6, 5, 12, tzinfo=UTC).timestamp()
        tariff.learn(self.samples(now_s))
        later_s = now_s + STALE_AFTER_S + 1
        assert not tariff.is_fresh(later_s)
        assert tariff.expect_now(later_s) == pytest.approx(0.3, abs=0.02)

    def test_intervals_of_forecasts_cover_what_comes(self) -> None:
        rng, covered, known = np.random.default_rng(5), [], 7 * 24
        for _ in range(60):
            noise = [rng.normal(0, 23)]
            for _ in range(8 * 24):
                noise.append(0.9 * noise[-1] + rng.normal(0, 10))
            times_s = [hour * HOUR_S for hour in range(len(noise))]
            figures = 300 + 80 * np.sin(2 * np.pi * np.arange(len(noise)) / 24) + noise
            tariff = Tariff(TariffSettings(per_kwh=0, query="carbon"))
            tariff.learn(list(zip(times_s, figures.tolist(), strict=True))[:known])
            means, deviations = tariff.forecast(times_s[known - 1 : -1])
            errors = np.abs(figures[known:-1] - means[1:])
            covered.append(float((errors <= 1.645 * deviations[1:]).mean()))
        assert 0.85 <= np.mean(covered) <= 0.95


class TestConfiguration:
    @pytest.mark.parametrize(
        ("costs", "message"),
        [
            ({"money": [{"tiers": ["edge"], "per_kwh": 1}]}, "the last tariff must have neither"),
            ({"weights": {"money": 1}}, "weights.money needs money"),
            ({"weights": {"energy": 0}}, "must be above 0"),
            ({"carbon": [{"per_kwh": 1, "time_zone": "Berlin"}]}, "must be the name of a time zone"),
            ({"carbon": [{"per_kwh": 1, "query": "x", "periods": [NIGHT.model_dump()]}]}, "either periods or a query"),
            ({"money": [{"per_kwh": "cheap"}]}, "valid number"),
        ],
    )
    def test_mistakes_are_named(self, costs: object, message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            Config.model_validate({"costs": costs})
