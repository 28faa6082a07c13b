"""The headline figures for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from perllm_lab.report.document import load_key
from perllm_lab.report.numbers import find_worst, number, percent, with_interval
from perllm_lab.report.ranking import describe_seeds
from perllm_lab.report.style import rank

HEADINGS = ("tasks/s", "in time", "worst", "tokens", "fleet J", "worst")
LEGEND = """\
tasks/s, in time, tokens: goodput; the share of the tasks, and of their tokens,
complete by their deadline. fleet J: energy of all nodes, idle ones too, and of
transmission, per task in time. worst: of all seeds.\
"""
"""The meaning of the headings."""


def headline_table(document: Mapping[str, Any]) -> Table:
    """Return the headline figures of a results document, policies by goodput at each load."""
    # So narrow that a row with the longest name of a policy fits 80 columns.
    table = Table(title=_describe(document), title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("policy", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for load in map(load_key, document["loads"]):
        table.add_row(f"load {load}")
        for policy in rank(document, load):
            table.add_row(f"  {policy}", *_list_cells(document["policies"][policy][load], document["units"]))
        table.add_section()
    return table


def _describe(document: Mapping[str, Any]) -> str:
    seeds = len(document["seeds"])
    spread = f"mean of {describe_seeds(document)} ± 95 % interval" if seeds > 1 else "one seed"
    return f"{document['scenario']}: {spread}"


def _list_cells(cell: Mapping[str, Any], units: Mapping[str, Any]) -> list[str]:
    """Return what stands below the headings."""
    shares, energy, share_unit = cell["hit_share"], cell["fleet_j_per_hit"], units["hit_share"]
    return [
        number(cell["goodput_per_s"]["mean"]),
        with_interval(shares, share_unit),
        percent(find_worst(shares, share_unit)),
        percent(cell["token_hit_share"]["mean"]),
        with_interval(energy, units["fleet_j_per_hit"]),
        number(find_worst(energy, units["fleet_j_per_hit"])),
    ]
