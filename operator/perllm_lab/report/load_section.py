"""The part of the page about one load."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from perllm_lab.report.blocks import figure, table, tag
from perllm_lab.report.charts import PERCENT, PLAIN, Bar, Frame, Line, Part, draw_bars, draw_lines, draw_parts
from perllm_lab.report.curves import bound_regret
from perllm_lab.report.loads import describe_load
from perllm_lab.report.numbers import is_share, number, percent, title_of, with_interval, with_worst
from perllm_lab.report.style import COLOURS, QUIET, Look, rank

Json = Mapping[str, Any]

HEADLINE = (
    *("goodput_per_s", "hit_share", "token_hit_share", "fleet_j_per_hit", "active_j_per_hit"),
    *("latency_p50_s", "latency_p95_s", "latency_p99_s", "tokens_per_s", "learning_misses"),
)
BARS = ("goodput_per_s", "fleet_j_per_hit", "hit_share", "token_hit_share")
ENERGY = (
    ("inference", "inference_j", COLOURS[0]),
    ("idle", "idle_j", QUIET),
    ("transmission", "transmission_j", COLOURS[1]),
)


def render_load(document: Json, load: str, looks: Mapping[str, Look]) -> str:
    """Return headline figures and charts of one load, policies by goodput."""
    order = rank(document, load)
    cells = {policy: document["policies"][policy][load] for policy in order}
    units = document["units"]
    rows = [[policy, *[with_worst(cell[name], units[name]) for name in HEADLINE]] for policy, cell in cells.items()]
    charts = [
        *[_bars(document, load, name, cells, looks) for name in BARS],
        _places(document, load, order),
        _energy(cells),
        _latency(document, load, order, looks),
        _learning(document, load, order, looks),
        _regret(document, load, order, looks),
    ]
    return tag(
        "section",
        tag("h2", f"Load {load}"),
        tag("p", escape(f"{describe_load(document, load)}. In brackets: the worst seed.")),
        *[tag("p", tag("strong", escape(caveat))) for caveat in document["caveats"][load]],
        table(["policy", *[title_of(units[name]) for name in HEADLINE]], rows),
        tag("div", *charts, class_="charts"),
        id=f"load-{load}",
    )


def _bars(document: Json, load: str, name: str, cells: Mapping[str, Json], looks: Mapping[str, Look]) -> str:
    unit = document["units"][name]
    bars = [_bar(policy, cell[name], unit, looks[policy]) for policy, cell in cells.items()]
    chart = draw_bars(bars, PERCENT if is_share(unit) else PLAIN)
    return figure(title_of(unit), chart, unit["meaning"])


def _bar(policy: str, spread: Json, unit: Json, look: Look) -> Bar:
    return Bar(policy, spread["mean"], spread["low"], spread["high"], with_interval(spread, unit), look.colour)


def _places(document: Json, load: str, order: Sequence[str]) -> str:
    """Return where tasks went by GPU type; the most used types have a colour each, the rest is one part."""
    shares = [
        {name: group["placed_share"]["mean"] or 0.0 for name, group in document["gpu_types"][policy][load].items()}
        for policy in order
    ]
    used: Counter[str] = sum(map(Counter, shares), Counter())
    names = [name for name, _ in used.most_common()]
    parts = [
        Part(name, [of.get(name, 0.0) for of in shares], colour) for name, colour in zip(names, COLOURS, strict=False)
    ]
    if others := names[len(COLOURS) :]:
        parts.append(Part("others", [sum(of.get(name, 0.0) for name in others) for of in shares], QUIET))
    chart = draw_parts(order, parts, percent, PERCENT, has_sums=False)
    return figure("where tasks went", chart, "Share of placed tasks by GPU type.")


def _energy(cells: Mapping[str, Json]) -> str:
    parts = [
        Part(part, [(cell[name]["mean"] or 0.0) / 1e6 for cell in cells.values()], colour)
        for part, name, colour in ENERGY
    ]
    chart = draw_parts(list(cells), parts, number, PLAIN, has_sums=True)
    return figure("energy by part, MJ", chart, "Whole fleet over the window, for all tasks, in time or not.")


def _latency(document: Json, load: str, order: Sequence[str], looks: Mapping[str, Look]) -> str:
    """Return the share of all tasks completed within a time; it ends where the rest never completed."""
    lines = []
    for policy in order:
        curve = document["curves"][policy][load]["latency_s"]
        completed = document["policies"][policy][load]["completed_share"]["mean"]
        if curve is not None and completed is not None:
            lines.append(Line(policy, looks[policy], curve["mean"], [quantile * completed for quantile in curve["x"]]))
    frame = Frame("seconds from arrival", PERCENT, log_x=True, y_limits=(0.0, 1.0))
    note = "Share of all tasks that were complete within a time; a line ends where no more completed."
    return figure("latency, all tasks", draw_lines(lines, frame), note)


def _learning(document: Json, load: str, order: Sequence[str], looks: Mapping[str, Look]) -> str:
    lines = _curves(document, load, order, looks, "block_hit_share")
    frame = Frame("tasks so far", PERCENT, y_limits=(0.0, 1.0), marks=_warm_up(document, load))
    note = f"Share in time of each {number(lines[0].x[0])} tasks, warm-up included."
    return figure("learning: in time, block by block", draw_lines(lines, frame), note)


def _regret(document: Json, load: str, order: Sequence[str], looks: Mapping[str, Look]) -> str:
    lines = _curves(document, load, order, looks, "regret")
    if not lines:
        return ""
    limits = bound_regret(lines[0].x, nodes=document["setting"]["nodes"])
    bound = Line("the paper's bound", Look(QUIET, is_dashed=True), lines[0].x, limits)
    chart = draw_lines([bound, *lines], Frame("tasks so far", marks=_warm_up(document, load)))
    note = (
        "Tasks in time so far, fewer than the reference had; a flat line is as good as the reference. The paper bounds "
        "the regret of its policy, in rewards, by sqrt(2 M N ln L) and a penalty that it does not bound; drawn is the "
        "first part, for M = 1 service, N nodes and L tasks."
    )
    return figure(f"regret against {document['reference']}, tasks", chart, note)


def _curves(document: Json, load: str, order: Sequence[str], looks: Mapping[str, Look], name: str) -> list[Line]:
    curves = {policy: document["curves"][policy][load][name] for policy in order}
    return [Line(policy, looks[policy], curve["x"], curve["mean"]) for policy, curve in curves.items() if curve]


def _warm_up(document: Json, load: str) -> list[tuple[float, str]]:
    known = [at for at in document["workload"][load]["judged_from_task"] if at is not None]
    return [(sum(known) / len(known), "judged from here")] if known else []
