"""A report as one HTML page that needs nothing else: no network, no script, no font."""

from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from importlib.resources import files

from perllm.reporting.advice import list_advice
from perllm.reporting.blocks import Markup, bar, legend, table, tag
from perllm.reporting.report import NodeReport, Promise, Report, add_up
from perllm.reporting.saving import Saving
from perllm.reporting.units import count, energy, kilowatt_hours, percent

MAX_ROWS = 200
_METHOD = "PerLLM's docs/shadow.md and docs/bill.md"
_CAUSES = {
    "tier": "not allowed by the task's tiers",
    "size": "fewer GPUs than the pod requests",
    "selector": "labels that the pod selects are missing",
    "taint": "a taint that the pod does not tolerate",
    "node-condition": "a taint because of the node's state",
    "server": "no model server there serves the model",
    "circuit": "the last tasks were refused or failed there",
    "hold": "nodes had refused the task",
    "avoided": "an earlier attempt ended badly there",
    "compute": "no free slot",
    "bandwidth": "uplink full",
    "late": "too small a chance to be in time",
    "harm": "would have made other tasks late",
    "price": "capacity was scarce, and worth more to other tasks",
}


def render_page(report: Report) -> str:
    """Return the report as a page."""
    style = files("perllm.reporting").joinpath("page.css").read_text("utf-8")
    head = tag(
        "head",
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        tag("title", "PerLLM report"),
        tag("style", style),
    )
    sections = (
        _render_verdict,
        _render_nodes,
        _render_energy,
        _render_payers,
        _render_promises,
        _render_obstacles,
        _render_advice,
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *[render(report) for render in sections]), lang='en')}\n"


def _render_verdict(report: Report) -> Markup:
    period = report.bill.period
    start, end = (f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M}" for at_s in (period.start_s, period.end_s))
    used_j, measured_j = sum(line.inference_j for line in report.bill.lines), report.bill.measured_j
    facts = [
        ("Deadlines met", percent(report.met, report.judged), f"{count(report.met)} of {count(report.judged)} tasks"),
        (
            "Energy of tasks",
            energy(used_j),
            f"{kilowatt_hours(used_j)}; all nodes used {energy(measured_j)}",
        ),
        ("Energy saved", *_describe_saving(report.saved_j, energy)),
        ("Deadlines saved", *_describe_saving(report.saved_deadlines, count)),
    ]
    cards = [
        tag("div", tag("dt", escape(title)), tag("dd", escape(value), tag("small", escape(note))))
        for title, value, note in facts
    ]
    against = "Saved: against the plain kube-scheduler, with the 90 % interval."
    if report.shadowed:
        against = (
            f"Shadow mode compared {count(report.shadowed)} pods of other schedulers. Saved: what PerLLM would have "
            "saved, with the 90 % interval."
        )
    return "".join(
        [
            tag("h1", "PerLLM report"),
            tag("p", escape(f"{start} to {end} UTC")),
            tag("dl", *cards, class_="verdict"),
            tag("p", escape(f"{against} {_METHOD} have the methods and their limits.")),
        ]
    )


def _describe_saving(saving: Saving | None, show: Callable[[float], str]) -> tuple[str, str]:
    if saving is None:
        return "unknown", "nothing was compared"
    if saving.half is None:
        return show(saving.total), "too few tasks for an interval"
    verdict = "" if saving.is_certain else "; not certain, since it contains 0"
    return show(saving.total), f"{show(saving.total - saving.half)} to {show(saving.total + saving.half)}{verdict}"


def _render_nodes(report: Report) -> Markup:
    busy = [node for node in report.nodes if node.tasks]
    most = max((node.tasks for node in busy), default=0.0)
    rows = [
        [
            escape(node.node),
            escape(node.tier),
            escape(node.gpu),
            count(node.tasks),
            percent(node.met, node.tasks),
            bar({"met": node.met, "missed": node.missed}, most),
        ]
        for node in busy
    ]
    return _section(
        "Where tasks went",
        "No task has ended on a node.",
        rows,
        ["node", "tier", "GPU", "tasks", "in time", ""],
        key=legend(["met", "missed"]),
        texts=3,
    )


def _render_energy(report: Report) -> Markup:
    metered = [node for node in report.nodes if node.measured_j]
    most = max((node.measured_j for node in metered), default=0.0)
    rows = [_list_energy(node, most) for node in metered]
    if len(rows) > 1:
        total = add_up(report.nodes)
        rows.insert(0, _list_energy(total, total.measured_j))
    section = _section(
        "Where the energy went",
        "No energy was measured: perllm doctor says why.",
        rows,
        ["node", "measured", "inference", "idle", "foreign", "unattributed", "transmission", ""],
        key=legend(["inference", "idle", "foreign", "unattributed"]),
    )
    note = "Inference is what tasks were charged on nodes. Transmission is estimated, and not part of what is measured."
    return section + tag("p", note)


def _list_energy(node: NodeReport, most: float) -> list[Markup]:
    tasks_j, idle_j, foreign_j = (node.parts_j.get(part, 0.0) for part in ("tasks", "idle", "foreign"))
    parts = {"inference": tasks_j, "idle": idle_j, "foreign": foreign_j, "unattributed": node.unattributed_j}
    figures = (node.measured_j, *parts.values(), node.transmission_j)
    return [escape(node.node), *map(energy, figures), bar(parts, most)]


def _render_payers(report: Report) -> Markup:
    rows = [
        [
            escape(line.payer),
            count(line.tasks),
            percent(line.met, line.judged),
            count(line.prompt_tokens + line.output_tokens),
            energy(line.inference_j),
        ]
        for line in report.bill.lines
    ]
    return _section(
        "Who used it", "No task has ended.", rows, ["namespace", "tasks", "in time", "tokens", "energy on nodes"]
    )


def _render_promises(report: Report) -> Markup:
    rows = [
        [
            f"{promise.least:g} to {promise.most:g} %",
            count(promise.tasks),
            percent(promise.met, promise.tasks),
            "{:.0f} to {:.0f} %".format(*promise.interval),
            _judge(promise),
        ]
        for promise in report.promises
    ]
    return _section(
        "What was promised, and what came",
        "No task has ended that was placed with a chance.",
        rows,
        ["promised chance", "tasks", "in time", "95 % interval", ""],
    )


def _judge(promise: Promise) -> Markup:
    low, high = promise.interval
    if high < promise.least:
        return tag("span", "promised too much", class_="bad")
    if low > promise.most:
        return tag("span", "promised too little", class_="good")
    return "as promised"


def _render_obstacles(report: Report) -> Markup:
    missed = [[escape(reason), escape(phase), count(tasks)] for (phase, reason), tasks in report.missed.items()]
    excluded = [
        [escape(reason), escape(_CAUSES.get(reason, "")), f"{nodes / report.placed:.2f}" if report.placed else "-"]
        for reason, nodes in report.exclusions.items()
    ]
    return _section(
        "What stood in the way",
        "Every deadline was met." if report.judged else "No task has ended.",
        missed,
        ["reason of missed deadlines", "phase of the task", "tasks"],
        texts=2,
    ) + _section(
        "",
        "No node was excluded.",
        excluded,
        ["reason of excluded nodes", "meaning", "nodes per placement"],
        texts=2,
    )


def _render_advice(report: Report) -> Markup:
    advice = list_advice(report)
    items = tag("ul", *[tag("li", escape(words)) for words in advice]) if advice else tag("p", "Nothing stands out.")
    return tag("h2", "What would help") + items


def _section(
    title: str, nothing: str, rows: list[list[Markup]], head: list[str], *, key: Markup = "", texts: int = 1
) -> Markup:
    heading = tag("h2", escape(title)) if title else ""
    if not rows:
        return heading + tag("p", escape(nothing))
    left_out = len(rows) - MAX_ROWS
    more = tag("p", f"and {count(left_out)} more") if left_out > 0 else ""
    return heading + key + table(head, rows[:MAX_ROWS], texts) + more
