import re
from html.parser import HTMLParser

import pytest

from perllm.reporting.advice import list_advice
from perllm.reporting.page import MAX_ROWS, render_page
from perllm.reporting.report import Promise, Report, read_report
from perllm.reporting.saving import Saving, read_saving
from unit.reporting.past_of import END_S, PERIOD, ScrapedMetrics, scrape

VOID = {"meta"}


class Document(HTMLParser):
    """Checks that elements are closed, and collects the text and the addresses in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in VOID else [tag]
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def busy() -> ScrapedMetrics:
    """Two nodes, of which one is far away, and tasks of which some were hopeless."""
    metrics = ScrapedMetrics()
    for node, gpu, met, missed in (("edge-1", "Jetson AGX Orin", 30, 10), ("cloud-1", "<GB300>", 20, 0)):
        for is_met, tasks in (("true", met), ("false", missed)):
            metrics.count("perllm_node_tasks", tasks, node=node, tier=node[:-2], gpu=gpu, met=is_met)
        metrics.count("perllm_node_energy_joules", 1000.0, node=node)
        for part, energy_j in (("tasks", 200.0), ("idle", 700.0), ("foreign", 100.0)):
            metrics.count("perllm_node_energy_part_joules", energy_j, node=node, part=part)
        for part, seconds in (("queue", 10.0), ("transfer", 60.0 if node == "edge-1" else 1.0), ("inference", 80.0)):
            metrics.count("perllm_node_task_seconds", seconds, node=node, part=part)
    for chance, met, tasks in (("0-50", 2, 12), ("90-95", 46, 50)):
        metrics.count("perllm_promises", met, chance=chance, met="true")
        metrics.count("perllm_promises", tasks - met, chance=chance, met="false")
    by = {"by": "namespace", "payer": "chat"}
    metrics.count("perllm_bill_joules", 400.0, **by, part="inference")
    metrics.count("perllm_bill_tasks", 62, **by, phase="Succeeded")
    metrics.count("perllm_bill_deadlines", 50, **by, met="true")
    metrics.count("perllm_bill_deadlines", 12, **by, met="false")
    for quality, tasks in (("measured", 52), ("missing", 10)):
        metrics.count("perllm_bill_measurements", tasks, **by, quality=quality)
    metrics.count("perllm_deadlines_missed", 2, phase="Rejected", reason="Infeasible")
    metrics.count("perllm_nodes_excluded", 31, reason="late")
    metrics.count("perllm_decisions", 62, policy="cs-ucb")
    return metrics


async def report() -> Report:
    return await read_report(busy().past())


async def test_a_report_has_nodes_promises_and_obstacles() -> None:
    found = await report()

    edge, cloud = found.nodes
    assert (edge.node, edge.tier, edge.gpu, edge.met, edge.missed) == ("edge-1", "edge", "Jetson AGX Orin", 30, 10)
    assert (edge.measured_j, edge.parts_j["idle"], edge.unattributed_j) == (1000, 700, 0)
    assert cloud.seconds == {"queue": 10, "transfer": 1, "inference": 80}
    assert [(one.least, one.most, one.met, one.tasks) for one in found.promises] == [(0, 50, 2, 12), (90, 95, 46, 50)]
    assert (found.met, found.judged) == (50, 62)
    assert found.missed == {("Rejected", "Infeasible"): 2}
    assert (found.exclusions, found.placed) == ({"late": 31}, 62)


async def test_advice_names_what_stands_in_the_way() -> None:
    advice = list_advice(await report())

    assert [words.split(":")[0] for words in advice] == [
        "Deadlines that no node is likely to meet",
        "A faster uplink of edge-1",
        "More tasks on <GB300>",
        "Energy meters",
        "Fewer nodes that are on",
    ]
    assert "14 of 62 tasks" in advice[0]
    assert "40% of their time" in advice[1]
    assert "16% of the tasks is missing" in advice[3]


async def test_a_page_is_complete_in_itself_and_shows_names_as_text() -> None:
    document = Document(render_page(await report()))

    assert document.open == []
    assert document.addresses == []
    assert "url(" not in document.text
    assert "<GB300>" in document.words
    assert re.search(r"Deadlines met\s+80.6 %\s+50 of 62 tasks", document.text)
    assert re.search(r"90 to 95 %\s+50\s+92.0 %\s+81 to 97 %\s+as promised", document.text)
    assert re.search(r"late\s+too small a chance to be in time\s+0.50", document.text)


async def test_a_page_without_any_metrics_says_what_is_missing() -> None:
    document = Document(render_page(await read_report(ScrapedMetrics().past())))

    assert document.open == []
    for words in (
        "nothing was compared",
        "No task has ended on a node.",
        "No energy was measured",
        "What stood in the way No task has ended.",
        "Nothing stands out.",
    ):
        assert words in document.text


async def test_a_long_table_says_how_many_rows_it_leaves_out() -> None:
    metrics = ScrapedMetrics()
    for number in range(MAX_ROWS + 7):
        metrics.count("perllm_node_tasks", 1, node=f"n{number}", tier="edge", gpu="T4", met="true")

    assert "and 7 more" in Document(render_page(await read_report(metrics.past()))).words


@pytest.mark.parametrize(
    ("met", "words"), [(80, "promised too much"), (93, "as promised"), (100, "promised too little")]
)
async def test_promises_are_judged_by_what_chance_allows(met: int, words: str) -> None:
    metrics = ScrapedMetrics()
    metrics.count("perllm_promises", met, chance="90-95", met="true")
    metrics.count("perllm_promises", 100 - met, chance="90-95", met="false")
    assert words in Document(render_page(await read_report(metrics.past()))).words


@pytest.mark.parametrize("labels", [{}, {"chance": "high"}, {"chance": "nan-inf"}])
async def test_promises_without_a_chance_are_left_out(labels: dict[str, str]) -> None:
    metrics = ScrapedMetrics()
    metrics.count("perllm_promises", 7, met="true", **labels)
    assert (await read_report(metrics.past())).promises == ()


def test_the_interval_of_a_promise_is_wilsons() -> None:
    assert Promise(90, 95, 46, 50).interval == pytest.approx((81.2, 96.8), abs=0.1)


def step(before: float, after: float) -> dict[int, float]:
    """A gauge that changes a minute after the period begins."""
    return scrape((660, before, 0.0), (1200, after, 0.0))


def put_saving(
    metrics: ScrapedMetrics, total: dict[int, float], half: dict[int, float], pod: str, since_s: int
) -> None:
    metrics.put("perllm_saved_joules", total, bound="total", pod=pod)
    metrics.put("perllm_saved_joules", {at_s: total[at_s] + half[at_s] for at_s in half}, bound="high", pod=pod)
    metrics.put("perllm_outcomes_learned_created", dict.fromkeys(total, since_s), pod=pod)


async def test_savings_are_what_was_added_in_the_period() -> None:
    metrics = ScrapedMetrics()
    put_saving(metrics, step(100.0, 500.0), step(30.0, 50.0), "a", 0)

    assert await read_saving(metrics.past(), "joules") == Saving(400, 40)


async def test_savings_of_a_restarted_operator_begin_at_zero_and_intervals_are_independent() -> None:
    metrics = ScrapedMetrics()
    put_saving(metrics, step(0.0, 100.0), step(0.0, 30.0), "a", 0)
    later_s = PERIOD.start_s + 1500
    second = scrape((END_S - later_s, 50.0, 0.0), start_s=later_s)
    put_saving(metrics, second, dict.fromkeys(second, 40.0), "b", later_s - 30)

    assert await read_saving(metrics.past(), "joules") == Saving(150, 50)


async def test_savings_of_a_container_that_was_restarted_in_its_pod_add_up() -> None:
    metrics = ScrapedMetrics()
    start_s, restarted_s = PERIOD.start_s, PERIOD.start_s + 1800
    total = scrape((1200, 100.0, 0.0), (1200, 500.0, 0.0), (1800, 50.0, 0.0))
    half = scrape((1200, 30.0, 0.0), (1200, 50.0, 0.0), (1800, 30.0, 0.0))
    put_saving(metrics, total, half, "a", 0)
    created = {at_s: 0.0 if at_s < restarted_s else restarted_s for at_s in total}
    metrics.series[-1] = (metrics.series[-1][0], created)

    assert min(total) == start_s - 600
    assert await read_saving(metrics.past(), "joules") == Saving(450, 50)


async def test_savings_that_two_jobs_scrape_count_once() -> None:
    metrics = ScrapedMetrics()
    for job in ("monitor", "annotations"):
        put_saving(metrics, step(100.0, 500.0), step(30.0, 50.0), job, 7)

    assert await read_saving(metrics.past(), "joules") == Saving(400, 40)


async def test_an_interval_that_was_unknown_at_the_start_is_not_narrowed() -> None:
    metrics = ScrapedMetrics()
    put_saving(metrics, scrape((900, 0.0, 0.0), (900, 100.0, 0.0), (1200, 500.0, 0.0)), {}, "a", 0)
    high = scrape((900, 180.0, 0.0), (1200, 700.0, 0.0), start_s=PERIOD.start_s + 300)
    metrics.put("perllm_saved_joules", high, bound="high", pod="a")

    assert await read_saving(metrics.past(), "joules") == Saving(500, 200)


async def test_savings_without_an_interval_are_not_certain() -> None:
    metrics = ScrapedMetrics()
    metrics.put("perllm_saved_joules", step(0.0, 9.0), bound="total")

    found = await read_saving(metrics.past(), "joules")

    assert found == Saving(9, None)
    assert found.is_certain is False
    assert Saving(9, 8).is_certain
    assert not Saving(9, 10).is_certain
