"""The headline figures for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from perllm_lab.report.document import load_key
from perllm_lab.report.loads import describe_load
from perllm_lab.report.numbers import with_worst
from perllm_lab.report.style import rank

COLUMNS = {
    "goodput_per_s": "tasks/s",
    "hit_share": "in time",
    "token_hit_share": "tokens",
    "fleet_j_per_hit": "fleet J",
    "latency_p95_s": "p95 s",
}
LEGEND = """\
tasks/s, in time, tokens: goodput, and the share of the tasks and of their tokens complete by their deadline
fleet J: energy of all nodes, idle ones too, and of transmission, per task in time; p95 s: from arrival to completion
in brackets: the worst seed\
"""
"""The meaning of the headings."""


def headline_table(document: Mapping[str, Any]) -> Table:
    """Return the headline figures of a results document, policies by goodput at each load."""
    table = Table(title=_describe(document), title_justify="left", box=None)
    table.add_column("load", no_wrap=True, min_width=4)
    table.add_column("policy", no_wrap=True)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    units = document["units"]
    for load in map(load_key, document["loads"]):
        for policy in rank(document, load):
            cell = document["policies"][policy][load]
            table.add_row(load, policy, *(with_worst(cell[name], units[name]) for name in COLUMNS))
        table.add_section()
    return table


def describe_loads(document: Mapping[str, Any]) -> list[str]:
    """Return a line per load: what it is a share of, and what its runs are too few or too short for."""
    return [
        f"load {describe_load(document, load)}" + "".join(f"; {caveat}" for caveat in document["caveats"][load])
        for load in map(load_key, document["loads"])
    ]


def _describe(document: Mapping[str, Any]) -> str:
    seeds = len(document["seeds"])
    spread = f"mean of {seeds} seeds ± 95 % interval" if seeds > 1 else "one seed"
    return f"{document['scenario']}: {spread}"
