import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from perllm_lab.report.document import build_document
from perllm_lab.report.headline import headline_table
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


def build(build_run: Builder, policies: int, loads: int, **setting: object) -> dict[str, Any]:
    runs = [
        build_run([IN] * (20 - number) + [LATE] * number, policy=f"p{number}", load=0.3 * (at + 1), seed=seed)
        for number in range(policies)
        for at in range(loads)
        for seed in (0, 1)
    ]
    return build_document(runs, setting)


@pytest.mark.parametrize(("policies", "loads"), [(1, 1), (10, 2)])
def test_page_is_well_formed_and_needs_nothing_else(build_run: Builder, policies: int, loads: int) -> None:
    reader = read(build(build_run, policies, loads))
    assert (reader.wrong, reader.open) == ([], [])
    assert all(reference.startswith("#") for reference in reader.references)
    assert not reader.tags & {"script", "link", "img", "iframe"}


def test_page_names_every_policy_and_the_best_first(build_run: Builder) -> None:
    shown = read(build(build_run, 3, 1)).shown
    assert 0 < shown.index("p0") < shown.index("p1") < shown.index("p2")


def test_text_of_others_cannot_become_markup(build_run: Builder) -> None:
    evil = "<script>alert(1)</script>"
    runs = [build_run([IN, LATE], policy=evil), build_run([IN, IN], policy='" onload="x')]
    document = build_document(runs, {evil: [evil, {"deep": evil}]})
    page = render_page(document)
    assert "<script" not in page
    assert 'onload="x"' not in page
    assert evil in read(document).shown


def test_page_of_a_policy_without_a_single_figure(build_run: Builder) -> None:
    runs = [build_run([REFUSED, REFUSED], node=[-1, -1]), build_run([IN, IN], policy="clairvoyant")]
    reader = read(build_document(runs, {"nodes": 1}))
    assert (reader.wrong, reader.open) == ([], [])


def test_the_setting_names_the_policy_that_is_compared(build_run: Builder) -> None:
    assert "p1 against each other policy" in read(build(build_run, 3, 1, subject="p1")).shown


def test_headline_shows_figures_with_their_intervals(build_run: Builder) -> None:
    runs = [build_run([IN] * hits + [LATE] * (10 - hits), seed=seed) for seed, hits in enumerate((5, 6, 7))]
    console = Console(width=160, record=True, file=StringIO())
    console.print(headline_table(build_document(runs, {})))
    text = console.export_text()
    assert "60.0 ±24.8 %" in text
    assert "0.667 ±0.276" in text


def test_headline_shows_the_bound_at_each_load(build_run: Builder) -> None:
    document = build_document([build_run([IN, IN])], {}, bounds={(0.9, 0): 1.25})
    console = Console(width=160, record=True, file=StringIO())
    console.print(headline_table(document))
    assert re.search(r"0\.9 +upper bound +1\.25", console.export_text())
