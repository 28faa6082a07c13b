import pytest
from prometheus_client import CollectorRegistry, Counter

from perllm.controller.end_metrics import EndMetrics
from perllm.costs.metrics import CostMetrics
from perllm.energy.accounts import AccountMetrics
from perllm.energy.bill import BillMetrics
from perllm.metrics import OperatorMetrics
from perllm.reporting.increases import OWN_LABELS, Period
from unit.reporting.past_of import END_S, PERIOD, ScrapedMetrics, scrape

LONG_AGO_S = END_S - 100_000


async def increase(samples: dict[int, float], created_s: int | None) -> float:
    metrics = ScrapedMetrics()
    metrics.put("joules_total", samples)
    if created_s is not None:
        metrics.put("joules_created", dict.fromkeys(samples, created_s))
    return (await metrics.past().read_increases("joules")).total()


async def test_a_counter_counts_from_its_value_at_the_start() -> None:
    assert await increase(scrape((4200, 1000.0, 1.0)), LONG_AGO_S) == pytest.approx(3600, abs=60)


async def test_a_reset_loses_nothing() -> None:
    restarted = scrape((1800, 1000.0, 1.0), (2400, 0.0, 1.0))
    assert await increase(restarted, PERIOD.start_s + 1200) == pytest.approx(3600, abs=90)


async def test_a_counter_below_zero_has_not_risen() -> None:
    assert await increase(scrape((1200, 100.0, 0.0), (3000, -50.0, 0.0)), LONG_AGO_S) == 0


async def test_a_counter_that_was_created_in_the_period_counts_from_zero() -> None:
    created_s = PERIOD.start_s + 1000
    first_seen_at_500 = scrape((600, 500.0, 0.0), start_s=created_s + 20)
    assert await increase(first_seen_at_500, created_s) == 500


async def test_what_prometheus_has_not_seen_of_an_older_counter_is_left_out() -> None:
    after_a_gap = scrape((600, 500.0, 1.0), start_s=PERIOD.start_s + 1000)
    assert await increase(after_a_gap, LONG_AGO_S) == pytest.approx(600, abs=60)
    assert await increase(after_a_gap, None) == pytest.approx(600, abs=60)


async def test_a_restart_does_not_make_a_counter_younger_than_the_period() -> None:
    metrics = ScrapedMetrics()
    kept_since_s, restarted_s = PERIOD.start_s + 1000, PERIOD.start_s + 2000
    metrics.put("joules_total", scrape((1000, 9000.0, 1.0), (1000, 0.0, 1.0), start_s=kept_since_s))
    metrics.put("joules_created", scrape((1000, LONG_AGO_S, 0.0), (1000, restarted_s, 0.0), start_s=kept_since_s))

    assert (await metrics.past().read_increases("joules")).total() == pytest.approx(2000, abs=120)


async def test_a_counter_that_two_jobs_scrape_counts_once() -> None:
    metrics = ScrapedMetrics()
    for job in ("monitor", "annotations"):
        metrics.count("joules", 100.0, job=job, node="n", part="idle")
        metrics.count("joules", 30.0, job=job, node="n", part="tasks")

    assert (await metrics.past().read_increases("joules")).sum_by("part") == {"idle": 100, "tasks": 30}


async def test_labels_that_a_scrape_job_has_as_well_are_still_those_of_the_operator() -> None:
    metrics = ScrapedMetrics()
    for node, amount in (("edge-1", 100.0), ("edge-2", 20.0)):
        metrics.count("joules", amount, exported_node=node, node="where-the-operator-runs")

    assert (await metrics.past().read_increases("joules")).sum_by("node") == {"edge-1": 100, "edge-2": 20}


async def test_series_of_replicas_add_up_and_only_matching_ones_are_asked_for() -> None:
    metrics = ScrapedMetrics()
    for pod, amount, created_s in (("a", 100.0, PERIOD.start_s + 600), ("b", 20.0, PERIOD.start_s + 601)):
        metrics.count("joules", amount, created_s=created_s, pod=pod, part="idle")
    metrics.count("joules", 7.0, pod="a", part="foreign")

    found = await metrics.past(cluster="edge").read_increases("joules")

    assert found.total() == 127
    assert found.sum_by("part") == {"idle": 120, "foreign": 7}
    assert found.sum_by("pod", part="idle") == {"a": 100, "b": 20}
    assert set(metrics.matchers) == {'{cluster="edge"}'}


@pytest.mark.parametrize(
    ("since_s", "step_s", "steps"), [(86400.0, 120, 720), (3600.0, 5, 720), (100.0, 1, 100), (1000.5, 2, 501)]
)
def test_a_period_ends_now_and_consists_of_whole_steps(since_s: float, step_s: int, steps: int) -> None:
    period = Period.last(since_s, END_S + 0.7)
    assert (period.end_s, period.step_s, period.length_s) == (END_S, step_s, steps * step_s)


@pytest.mark.parametrize("build", [AccountMetrics, BillMetrics, CostMetrics, EndMetrics, OperatorMetrics])
def test_counters_that_differ_in_a_label_of_the_operator_count_apart(
    build: type[AccountMetrics | BillMetrics | CostMetrics | EndMetrics | OperatorMetrics],
) -> None:
    registry = CollectorRegistry()
    build(registry)
    counters = {one for one in registry._collector_to_names if isinstance(one, Counter)}
    assert counters
    assert {label for one in counters for label in one._labelnames} <= OWN_LABELS
