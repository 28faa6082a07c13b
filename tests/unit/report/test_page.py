import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from html.parser import HTMLParser
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from perllm_lab.policies import policy_names
from perllm_lab.report.conclusion import conclude
from perllm_lab.report.digest import digest_run
from perllm_lab.report.document import build_document
from perllm_lab.report.headline import headline_table
from perllm_lab.report.origin import Origin
from perllm_lab.report.page import render_page
from perllm_lab.simulator.result import Fate, RunResult

IN, LATE, REFUSED = Fate.IN_TIME, Fate.LATE, Fate.REFUSED
VOID = {"meta"}

Builder = Callable[..., RunResult]


class Reader(HTMLParser):
    """Follows the nesting of a page and collects what it shows and refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.shown = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.shown += data


def read(document: dict[str, Any]) -> Reader:
    reader = Reader()
    reader.feed(render_page(document))
    return reader


def document_of(runs: Sequence[RunResult], setting: Mapping[str, object]) -> dict[str, Any]:
    return build_document([digest_run(run) for run in runs], setting)


def build(build_run: Builder, policies: int, loads: int, **setting: object) -> dict[str, Any]:
    runs = [
        build_run([IN] * (20 - number) + [LATE] * number, policy=f"p{number}", load=0.3 * (at + 1), seed=seed)
        for number in range(policies)
        for at in range(loads)
        for seed in (0, 1)
    ]
    return document_of(runs, setting)


@pytest.mark.parametrize(("policies", "loads"), [(1, 1), (4, 2)])
def test_page_is_well_formed_and_needs_nothing_else(build_run: Builder, policies: int, loads: int) -> None:
    reader = read(build(build_run, policies, loads))
    assert (reader.wrong, reader.open) == ([], [])
    assert all(reference.startswith("#") for reference in reader.references)
    assert not reader.tags & {"script", "link", "img", "iframe"}


@pytest.mark.usefixtures("without_charts")
def test_page_names_every_policy_and_the_best_first(build_run: Builder) -> None:
    shown = read(build(build_run, 3, 1)).shown
    assert 0 < shown.index("p0") < shown.index("p1") < shown.index("p2")


def test_text_of_others_cannot_become_markup(build_run: Builder) -> None:
    evil = "<script>alert(1)</script>"
    runs = [build_run([IN, LATE], policy=evil), build_run([IN, IN], policy='" onload="x')]
    document = document_of(runs, {evil: [evil, {"deep": evil}]})
    page = render_page(document)
    assert "<script" not in page
    assert 'onload="x"' not in page
    assert evil in read(document).shown


def test_page_of_a_policy_without_a_single_figure(build_run: Builder) -> None:
    nothing, other = build_run([REFUSED, REFUSED], node=[-1, -1]), build_run([IN, IN], policy="clairvoyant")
    for runs in ([nothing, other], [nothing]):
        reader = read(document_of(runs, {"nodes": 1}))
        assert (reader.wrong, reader.open) == ([], [])


@pytest.mark.usefixtures("without_charts")
def test_the_setting_names_the_policy_that_is_compared(build_run: Builder) -> None:
    assert "p1 against each other policy" in read(build(build_run, 3, 1, subject="p1")).shown


def test_headline_shows_figures_with_their_intervals(build_run: Builder) -> None:
    runs = [build_run([IN] * hits + [LATE] * (10 - hits), seed=seed) for seed, hits in enumerate((5, 6, 7))]
    console = Console(width=160, record=True, file=StringIO())
    console.print(headline_table(document_of(runs, {})))
    text = console.export_text()
    assert "60.0 ±24.8 %" in text
    assert "67.9 ±28.5" in text


def test_seeds_are_counted_by_policy(build_run: Builder) -> None:
    seeds = {"a": range(6), "b": range(2)}
    runs = [build_run([IN, LATE], policy=policy, seed=seed) for policy in seeds for seed in seeds[policy]]
    document, console = document_of(runs, {}), Console(width=160, record=True, file=StringIO())
    console.print(headline_table(document))
    assert "mean of 2 to 6 seeds, by policy" in console.export_text()
    assert "the mean over 2 to 6 seeds, by policy" in read(document).shown


def test_headline_shows_the_worst_seed(build_run: Builder) -> None:
    runs = [build_run([IN] * hits + [LATE] * (10 - hits), seed=seed) for seed, hits in enumerate((5, 6, 7))]
    console = Console(width=160, record=True, file=StringIO())
    console.print(headline_table(document_of(runs, {})))
    # tasks/s, in time, its worst, tokens, fleet J, its worst: of energy the most
    assert re.search(r"0\.667 +60\.0 ±24\.8 % +50 % +60 % +67\.9 ±28\.5 +80\.0", console.export_text())


@pytest.mark.usefixtures("without_charts")
def test_page_shows_the_worst_seed(build_run: Builder) -> None:
    runs = [build_run([IN] * hits + [LATE] * (10 - hits), seed=seed) for seed, hits in enumerate((5, 6, 7))]
    shown = read(document_of(runs, {})).shown
    assert "60.0 ±24.8 % (50.0)" in shown
    assert "67.9 ±28.5 (80.0)" in shown


@pytest.mark.usefixtures("without_charts")
def test_a_load_is_named_as_a_share_of_the_fleet_and_of_its_tiers(build_run: Builder) -> None:
    runs = [digest_run(build_run([IN] * 200, load=0.6))]
    document = build_document(runs, {}, capacity={"fleet": 6.0, "cloud": 3.0, "edge": 3.0})
    words = "0.6: 3.60 tasks/s, 0.600 of the fleet, 1.20 of the cloud, 1.20 of the edge"
    assert conclude(document) == {
        f"At load {words}: a has 100 % of the tasks in time.": [
            "Not conclusive: too few seeds: 1; at least 5 are needed."
        ]
    }
    assert words in read(document).shown


@pytest.mark.usefixtures("without_charts")
def test_the_page_opens_with_a_verdict_and_how_to_get_it_again(build_run: Builder) -> None:
    page = render_page(build(build_run, 2, 1), Origin("perllm-lab simulate --seeds 2", "1.2.3", date(2026, 1, 2)))
    reader = Reader()
    reader.feed(page)
    begin, end = reader.shown.index("Verdict"), reader.shown.index("Every policy saw the same tasks")
    verdict = reader.shown[begin:end]
    for words in ("Against p1:", "perllm-lab 1.2.3, 2026-01-02", "perllm-lab simulate --seeds 2", "too few seeds: 2"):
        assert words in verdict


def test_a_verdict_states_only_differences_that_seeds_agree_on(build_run: Builder) -> None:
    def compare(hits: Sequence[int]) -> str:
        ours = [build_run([IN] * 20, seed=seed) for seed in range(len(hits))]
        others = [build_run([IN] * n + [LATE] * (20 - n), policy="b", seed=at) for at, n in enumerate(hits)]
        ((comparison, *_),) = conclude(document_of([*ours, *others], {})).values()
        return comparison

    assert "100.0% more tasks in time (2.00 to 2.00 times)" in compare([10] * 5)
    assert "no certain difference in tasks in time" in compare([20, 20, 20, 20, 10])


def test_the_terminal_shows_a_row_in_80_columns(build_run: Builder) -> None:
    policy = max(policy_names(), key=len)
    runs = [build_run([IN] * hits + [LATE] * (10 - hits), policy=policy, seed=hits) for hits in (5, 6, 7)]
    document = document_of(runs, {})
    document["policies"][policy]["0.9"]["fleet_j_per_hit"] = {"mean": 12345.0, "high": 13579.0, "seeds": [14567.0]}
    console = Console(width=80, record=True, file=StringIO())
    console.print(headline_table(document))
    *_, heading, row = lines = console.export_text().splitlines()
    assert (len(lines), heading.split()) == (4, ["load", "0.9"])
    assert row.split()[:2] == [policy, "0.667"]
    assert "12,345 ±1,234 14,567" in row
    assert max(map(len, lines)) <= 80


@pytest.mark.usefixtures("without_charts")
class TestClaim:
    def shown(self, build_run: Builder, hits: int) -> str:
        runs = [
            build_run([IN] * count + [LATE] * (100 - count), policy=policy, load=1.25)
            for policy, count in (("ours", 80), ("fineinfer", hits), ("random", 10))
        ]
        limits = {(1.25, 0): {"hit_share": 0.9, "tokens_per_s": 20.0}}
        document = build_document([digest_run(run) for run in runs], {"subject": "ours"}, limits=limits)
        shown = read(document).shown
        return shown[shown.index("The paper's claim") : shown.index("Load 1.25", shown.index("clairvoyant's"))]

    def test_it_has_three_readings_and_what_capacity_allows(self, build_run: Builder) -> None:
        shown = self.shown(build_run, 40)
        # Both write 1,000 tokens in 99 s, and 20 a second are possible; 80 over 40 tasks are in time, 90 possible.
        assert "fineinfer1.001.982.002.250.500-" in shown
        assert "random" not in shown, "it is none of the paper's baselines"

    def test_a_baseline_that_has_next_to_nothing_in_time_gets_no_factor(self, build_run: Builder) -> None:
        assert "fineinfer1.001.9880 % against 2 %90 %--" in self.shown(build_run, 2)

    def test_without_a_named_policy_it_is_that_of_cs_ucb(self, build_run: Builder) -> None:
        runs = [build_run([IN] * 20, policy=policy) for policy in ("cs-ucb", "fineinfer")]
        assert "cs-ucb over each baseline of the PerLLM paper" in read(document_of(runs, {})).shown

    def test_without_the_papers_baselines_there_is_none(self, build_run: Builder) -> None:
        assert "The paper's claim" not in read(build(build_run, 2, 1, subject="p1")).shown
