"""The part of the page about one load."""

from collections.abc import Mapping, Sequence
from typing import Any

from perllm_lab.report.blocks import draw_key, figure, percent, table, with_interval
from perllm_lab.report.charts import Bar, Frame, Line, Stack, draw_bars, draw_lines, draw_stacks
from perllm_lab.report.style import COLOURS, QUIET, Look, colour_of, rank
from perllm_lab.report.svg import number, tag, tick

Json = Mapping[str, Any]

HEADLINE = (
    *("goodput_per_s", "hit_share", "token_hit_share", "fleet_j_per_hit", "active_j_per_hit"),
    *("latency_p50_s", "latency_p95_s", "latency_p99_s", "tokens_per_s", "learning_misses"),
)
BARS = ("goodput_per_s", "fleet_j_per_hit", "hit_share", "token_hit_share")
ENERGY = (("inference", "inference_j", 0), ("idle", "idle_j", 6), ("transmission", "transmission_j", 1))


def render_load(document: Json, load: str, looks: Mapping[str, Look]) -> str:
    """Return headline figures and charts of one load, policies by goodput."""
    order = rank(document, load)
    cells = {policy: document["policies"][policy][load] for policy in order}
    units = document["units"]
    heads = [units[name]["title"] + ("" if _is_share(units[name]) else f", {units[name]['unit']}") for name in HEADLINE]
    rows = [[policy, *[with_interval(cell[name], units[name]) for name in HEADLINE]] for policy, cell in cells.items()]
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
        table(["policy", *heads], rows),
        tag("div", *charts, class_="charts"),
        id=f"load-{load}",
    )


def _is_share(unit: Json) -> bool:
    return bool(unit["unit"] == "share")


def _bars(document: Json, load: str, name: str, cells: Mapping[str, Json], looks: Mapping[str, Look]) -> str:
    unit, bound = document["units"][name], document["bounds"].get(load, {}).get("mean")
    bars = [_bar(policy, cell[name], unit, looks[policy]) for policy, cell in cells.items()]
    mark = (bound, f"upper bound {number(bound)}") if name == "goodput_per_s" and bound is not None else None
    title = unit["title"] + ("" if _is_share(unit) else f", {unit['unit']}")
    return figure(title, draw_bars(title, bars, percent if _is_share(unit) else tick, mark), unit["meaning"])


def _bar(policy: str, spread: Json, unit: Json, look: Look) -> Bar:
    return Bar(policy, spread["mean"], spread["low"], spread["high"], with_interval(spread, unit), look.colour)


def _places(document: Json, load: str, order: Sequence[str]) -> str:
    """Return where tasks went by GPU type; the most used types have a colour each."""
    groups = {policy: document["gpu_types"][policy][load] for policy in order}
    used: dict[str, float] = {}
    for types in groups.values():
        for name, group in types.items():
            used[name] = used.get(name, 0.0) + (group["placed_share"]["mean"] or 0.0)
    names = sorted(used, key=lambda name: (-used[name], name))
    colours = {name: colour_of(at) for at, name in enumerate(names)}
    stacks = [
        Stack(
            policy,
            [(name, types[name]["placed_share"]["mean"] or 0.0, colours[name]) for name in names if name in types],
        )
        for policy, types in groups.items()
    ]
    key = [(name, colours[name]) for name in names[:COLOURS]] + ([("others", QUIET)] if len(names) > COLOURS else [])
    title = "where tasks went"
    note = "Share of placed tasks by GPU type."
    return figure(title, draw_key(key) + draw_stacks(title, stacks, percent, sums=False), note)


def _energy(cells: Mapping[str, Json]) -> str:
    stacks = [
        Stack(policy, [(part, (cell[name]["mean"] or 0.0) / 1e6, colour_of(at)) for part, name, at in ENERGY])
        for policy, cell in cells.items()
    ]
    title = "energy by part, MJ"
    key = draw_key([(part, colour_of(at)) for part, _, at in ENERGY])
    return figure(title, key + draw_stacks(title, stacks), "Whole fleet over the window, whatever was in time.")


def _latency(document: Json, load: str, order: Sequence[str], looks: Mapping[str, Look]) -> str:
    """Return which share of all tasks was complete within a time; it ends where the rest never completed."""
    lines = []
    for policy in order:
        curve = document["curves"][policy][load]["latency_s"]
        completed = document["policies"][policy][load]["completed_share"]["mean"]
        if curve is not None and completed is not None:
            shares = [quantile * completed for quantile in curve["x"]]
            lines.append(_look_line(policy, curve["mean"], shares, looks[policy]))
    title = "latency, all tasks"
    frame = Frame("seconds from arrival", "", format=percent, log_x=True, y_limits=(0.0, 1.0))
    note = "Share of all tasks that were complete within a time; a line ends where no more completed."
    return figure(title, draw_lines(title, lines, frame), note)


def _learning(document: Json, load: str, order: Sequence[str], looks: Mapping[str, Look]) -> str:
    curves = {policy: document["curves"][policy][load]["block_hit_share"] for policy in order}
    lines = [_look_line(policy, curve["x"], curve["mean"], looks[policy]) for policy, curve in curves.items()]
    frame = Frame("tasks so far", "", format=percent, y_limits=(0.0, 1.0), marks=_warm_up(document, load))
    title = "learning: in time, block by block"
    size = number(lines[0].x[0])
    return figure(title, draw_lines(title, lines, frame), f"Share in time of each {size} tasks, warm-up included.")


def _regret(document: Json, load: str, order: Sequence[str], looks: Mapping[str, Look]) -> str:
    curves = {policy: document["curves"][policy][load]["regret"] for policy in order}
    known = {policy: curve for policy, curve in curves.items() if curve is not None}
    if not known:
        return ""
    lines = [_look_line(policy, curve["x"], curve["mean"], looks[policy]) for policy, curve in known.items()]
    frame = Frame("tasks so far", "tasks", marks=_warm_up(document, load))
    title = f"regret against {document['reference']}"
    note = "Tasks in time fewer than those of the reference so far; flat is as good as it."
    return figure(title, draw_lines(title, lines, frame), note)


def _look_line(name: str, x: Sequence[float], y: Sequence[float | None], look: Look) -> Line:
    return Line(name, x, y, look.colour, dashed=look.dashed, quiet=look.quiet)


def _warm_up(document: Json, load: str) -> list[tuple[float, str]]:
    known = [at for at in document["workload"][load]["judged_from_task"] if at is not None]
    return [(sum(known) / len(known), "judged from here")] if known else []
