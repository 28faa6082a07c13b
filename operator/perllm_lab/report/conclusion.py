"""What a simulation shows, in words: one sentence for each load and policy that the subject is compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

from perllm_lab.report.document import load_key
from perllm_lab.report.loads import describe_load
from perllm_lab.report.numbers import number, percent
from perllm_lab.report.ranking import subject_of
from perllm_lab.report.style import rank

Json = Mapping[str, Any]

MAX_OTHERS = 4
"""Policies that are compared in words at each load, the best ones first; tables have all of them."""


def conclude(document: Json) -> dict[str, list[str]]:
    """Return the verdict on the subject of a results document: for each load a sentence, and those that follow it."""
    subject = subject_of(document)
    loads = [load for load in map(load_key, document["loads"]) if load in document["policies"][subject]]
    return dict(_judge_load(document, subject, load) for load in loads)


def _judge_load(document: Json, subject: str, load: str) -> tuple[str, list[str]]:
    cells = {policy: cell[load] for policy, cell in document["policies"].items() if load in cell}
    share = percent(cells[subject]["hit_share"]["mean"])
    others = [policy for policy in rank(document, load) if policy != subject][:MAX_OTHERS]
    ratios = document["comparisons"].get(subject, {}).get(load, {})
    lines = [_compare(other, ratios[other]) for other in others if other in ratios]
    lines += [f"Not conclusive: {caveat}." for caveat in document["caveats"][load]]
    return f"At load {describe_load(document, load)}: {subject} has {share} of the tasks in time.", lines


def _compare(other: str, ratios: Json) -> str:
    """Return how the subject compares with another policy: tasks in time, and energy per task in time."""
    tasks = _describe(ratios["goodput_per_s"], ("more", "fewer"), "tasks in time")
    energy = _describe(ratios["fleet_j_per_hit"], ("more", "less"), "energy per task in time")
    return f"Against {other}: {tasks}; {energy}."


def _describe(ratio: Json, words: Sequence[str], what: str) -> str:
    mean, low, high = (ratio[end] for end in ("mean", "low", "high"))
    if mean is None:
        return f"{what} cannot be compared"
    difference = f"{abs(mean - 1.0):.1%} {words[0] if mean >= 1.0 else words[1]} {what}"
    if low is None or high is None:
        return f"{difference} (no interval)"
    interval = f"{number(low)} to {number(high)} times"
    return f"{difference} ({interval})" if low > 1.0 or high < 1.0 else f"no certain difference in {what} ({interval})"
