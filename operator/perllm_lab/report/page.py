"""The page that a person reads: one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from perllm_lab.report.blocks import figure, fold, table, tag
from perllm_lab.report.charts import PERCENT, PLAIN, Frame, Line, draw_lines
from perllm_lab.report.claim_section import render_claim
from perllm_lab.report.conclusion import conclude
from perllm_lab.report.document import load_key
from perllm_lab.report.load_section import render_load
from perllm_lab.report.metrics import COMPARED
from perllm_lab.report.numbers import is_share, title_of, with_interval, with_range
from perllm_lab.report.origin import Origin
from perllm_lab.report.ranking import describe_seeds, rank_all, subject_of
from perllm_lab.report.style import SOFT, Look, choose_looks, rank

Json = Mapping[str, Any]

OVERVIEW = ("goodput_per_s", "hit_share", "token_hit_share", "fleet_j_per_hit")
FORECASTS = ("energy_error", "latency_error", "given_inside", "given_below", "given_above", "latency_inside", "brier")


def render_page(document: Json, origin: Origin | None = None) -> str:
    """Return the page of a results document.

    Setting "subject" to a policy compares that one with all others; without it, the best
    one that is not clairvoyant.
    """
    loads = [load_key(load) for load in document["loads"]]
    looks = choose_looks(rank_all(document), document["reference"])
    title = f"Simulation of {document['scenario']}"
    links = [tag("a", escape(f"load {load}"), href=f"#load-{load}") for load in loads]
    body = [
        tag("h1", escape(title)),
        _conclude(document, origin),
        _introduce(document),
        tag("nav", *links, tag("a", "comparison", href="#comparison"), tag("a", "all figures", href="#figures")),
        render_claim(document),
        _overview(document, loads, looks) if len(loads) > 1 else "",
        *[render_load(document, load, looks) for load in loads],
        _comparison(document, loads),
        _forecasts(document, loads, looks),
        _timing(document, loads),
        _all_figures(document, loads),
    ]
    head = tag("title", escape(title)) + tag("style", files(__package__).joinpath("page.css").read_text())
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    return f'<!doctype html><html lang="en"><head>{meta}{head}</head>{tag("body", *body)}</html>\n'


def _conclude(document: Json, origin: Origin | None) -> str:
    """Return the verdict, and how to get it again."""
    lines = []
    for heading, sentences in conclude(document).items():
        lines += [tag("p", tag("strong", escape(heading))), *[tag("p", escape(one)) for one in sentences]]
    if origin is not None:
        made = f"perllm-lab {origin.version}, {origin.day.isoformat()}"
        lines.append(tag("p", escape(f"{made}. To reproduce it (perllm-lab is in .venv/bin):")))
        lines.append(tag("pre", escape(origin.command)))
    return tag("section", tag("h2", "Verdict", id="verdict"), *lines)


def _introduce(document: Json) -> str:
    seeds = document["seeds"]
    rows = {**document["setting"], "loads": ", ".join(load_key(load) for load in document["loads"])}
    rows["seeds"] = ", ".join(str(seed) for seed in seeds)
    pairs = "".join(tag("dt", escape(str(name))) + tag("dd", escape(_format(value))) for name, value in rows.items())
    intervals = (
        f"± and whiskers are 95 % intervals of the mean over {describe_seeds(document)} (Student's t)."
        if len(seeds) > 1
        else "One seed: there are no intervals."
    )
    return tag("dl", pairs) + tag(
        "p",
        "Figures count the tasks that arrived in the judged window, after the warm-up, and the energy that the whole "
        f"fleet used in it, idle nodes included. Every policy saw the same tasks and links. {intervals}",
    )


def _format(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_format(entry)}" for key, entry in value.items())
    if isinstance(value, Sequence):
        return ", ".join(_format(entry) for entry in value)
    return str(value)


def _overview(document: Json, loads: Sequence[str], looks: Mapping[str, Look]) -> str:
    charts = []
    for name in OVERVIEW:
        unit = document["units"][name]
        lines = [_load_line(document, policy, name, look) for policy, look in looks.items()]
        frame = Frame(
            "load, share of capacity",
            PERCENT if is_share(unit) else PLAIN,
            log_y=name == "fleet_j_per_hit",
            y_limits=(0.0, 1.0) if is_share(unit) else None,
        )
        charts.append(figure(title_of(unit), draw_lines(lines, frame), unit["meaning"]))
    note = (
        "Bands are 95 % intervals. Dashed lines are baselines by deadline (+d) or with our admission (+x). "
        "Values far beyond the others are cut at the edge."
    )
    return tag("section", tag("h2", "Over load"), tag("p", note), tag("div", *charts, class_="charts"))


def _load_line(document: Json, policy: str, name: str, look: Look) -> Line:
    cells = document["policies"][policy]
    there = [(load, cells[load_key(load)][name]) for load in document["loads"] if load_key(load) in cells]
    return _spread_line(policy, there, look)


def _spread_line(name: str, cells: Sequence[tuple[float, Json]], look: Look) -> Line:
    x = [load for load, _ in cells]
    y, low, high = ([cell[end] for _, cell in cells] for end in ("mean", "low", "high"))
    return Line(name, look, x, y, low, high)


def _comparison(document: Json, loads: Sequence[str]) -> str:
    subject = subject_of(document)
    parts = [tag("h2", escape(f"{subject} against each other policy"), id="comparison")]
    parts.append(
        tag("p", f"Ratio, {escape(subject)} over the other; geometric mean over paired seeds and its interval.")
    )
    for load in loads:
        others = document["comparisons"].get(subject, {}).get(load, {})
        order = [policy for policy in rank(document, load) if policy in others]
        rows = [[other, *[with_range(others[other][name]) for name in COMPARED]] for other in order]
        titles = [document["units"][name]["title"] for name in COMPARED]
        parts.append(tag("h3", f"Load {load}") + table(["against", *titles], rows))
    return tag("section", *parts)


def _forecasts(document: Json, loads: Sequence[str], looks: Mapping[str, Look]) -> str:
    rows, charts = [], []
    for load in loads:
        lines = []
        for policy in rank(document, load):
            cell = document["policies"][policy][load]
            if all(cell[name]["mean"] is None for name in FORECASTS):
                continue
            rows.append(
                [f"{policy}, {load}", *[with_interval(cell[name], document["units"][name]) for name in FORECASTS]]
            )
            bins = document["curves"][policy][load]["reliability"]
            x, y = [found["chance"] for found in bins], [found["hit_share"] for found in bins]
            lines += [Line(policy, looks[policy], x, y)] if x else []
        charts.append(_draw_reliability(load, lines))
    if not rows:
        return ""
    titles = [document["units"][name]["title"] for name in FORECASTS]
    return tag("section", tag("h2", "Forecasts"), table(["", *titles], rows), tag("div", *charts, class_="charts"))


def _draw_reliability(load: str, lines: Sequence[Line]) -> str:
    diagonal = Line("calibrated", Look(SOFT, is_dashed=True), [0.0, 1.0], [0.0, 1.0])
    frame = Frame("predicted chance to be in time", PERCENT, y_limits=(0.0, 1.0))
    drawn = draw_lines([*lines, diagonal], frame) if lines else None
    note = "On the dashed line, tasks are in time as often as predicted."
    return figure(f"share in time by predicted chance, load {load}", drawn, note)


def _timing(document: Json, loads: Sequence[str]) -> str:
    names = ("decision_p50_ms", "decision_p99_ms", "wall_s")
    heads = [f"{document['units'][name]['title']}, {document['units'][name]['unit']}" for name in names]
    rows = [
        [f"{policy}, {load}", *[with_interval(document["timing"][policy][load][name]) for name in names]]
        for load in loads
        for policy in rank(document, load)
    ]
    note = tag(
        "p",
        "Time on the machine that ran the simulation, of its processor for decisions: all that differs between runs.",
    )
    return tag("section", tag("h2", "Timing"), note, fold("decision times and run times", table(["", *heads], rows)))


def _all_figures(document: Json, loads: Sequence[str]) -> str:
    parts = []
    for load in loads:
        order = rank(document, load)
        cells = [document["policies"][policy][load] for policy in order]
        rows = [
            [f"{unit['title']}, {unit['unit']}", *[with_interval(cell[name], unit) for cell in cells]]
            for name, unit in document["units"].items()
            if name in cells[0]
        ]
        parts.append(fold(f"load {load}", table(["", *order], rows)))
    return tag("section", tag("h2", "All figures", id="figures"), *parts)
