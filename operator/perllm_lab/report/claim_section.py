"""The claim of the PerLLM paper in its three readings: throughput, tasks in time, energy.

The paper states 2.2, 2.1 and 1.6 times the throughput of FineInfer, AGOD and RewardlessGuidance, at less than half the
energy, and neither at which load nor whether late tasks count. So there are three figures at each load:

    tokens per second     output tokens of all completed tasks, late ones included: throughput of a saturated fleet
    tasks in time         goodput
    energy                joules of the whole fleet per task in time

Next to each factor is the one that capacity allows at most (`simulator/capacity_limit.py`), with any policy. Energy
has no such limit; there it is the factor of the clairvoyant.
"""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from perllm.policy import contextual
from perllm_lab.report.blocks import table, tag
from perllm_lab.report.document import LEAST_SHARE, load_key
from perllm_lab.report.loads import describe_load
from perllm_lab.report.numbers import number, percent

Json = Mapping[str, Any]

PAPERS = ("fineinfer", "agod", "rewardless-guidance")
"""The baselines of the paper."""

HEAD = ("against", "tokens/s", "at most", "in time", "at most", "energy per task in time", "the clairvoyant's")


def render_claim(document: Json) -> str:
    """Return the section; nothing where none of the paper's baselines was run."""
    subject = find_subject(document)
    if subject is None:
        return ""
    parts = [
        tag("h2", "The paper's claim", id="claim"),
        tag(
            "p",
            escape(
                f"{subject} over each baseline of the PerLLM paper, which states 2.2, 2.1 and 1.6 times the throughput "
                "of FineInfer, AGOD and RewardlessGuidance, and less than half the energy. At most: what capacity and "
                "deadlines allow, however tasks are placed, over what the baseline did."
            ),
        ),
    ]
    for load in map(load_key, document["loads"]):
        if rows := list_rows(document, subject, load):
            parts += [tag("h3", escape(f"Load {describe_load(document, load)}")), table(HEAD, rows)]
    return tag("section", *parts)


def has_claim(policies: Iterable[str]) -> bool:
    """Return whether any of the paper's baselines is among the policies."""
    return any(name.split("+")[0] in PAPERS for name in policies)


def find_subject(document: Json) -> str | None:
    """Return the policy whose claim it is, the named one or cs-ucb; None where there is nothing to compare it with."""
    policies = document["policies"]
    if not has_claim(policies):
        return None
    named = document["setting"].get("subject") or contextual.NAME
    return str(named) if named in policies else None


def list_rows(document: Json, subject: str, load: str) -> list[list[str]]:
    """Return a row of `HEAD` for each of the paper's baselines in each of its deployment modes."""
    policies, against = document["policies"], document["comparisons"].get(subject, {}).get(load, {})
    order = [other for name in PAPERS for other in sorted(policies) if other.split("+")[0] == name and other in against]
    return [_row(document, subject, other, load) for other in order]


def _row(document: Json, subject: str, other: str, load: str) -> list[str]:
    own, theirs = (document["policies"][name][load] for name in (subject, other))
    ratios = document["comparisons"][subject][load][other]
    share = theirs["hit_share"]["mean"] or 0.0
    limits = document["limits"].get(load, {})
    tokens = [_factor(ratios["tokens_per_s"]), _divide(limits.get("tokens_per_s"), theirs["tokens_per_s"])]
    if share < LEAST_SHARE:
        possible = limits["hit_share"]["mean"] if limits else None
        in_time = [f"{percent(own['hit_share']['mean'])} against {percent(share)}", percent(possible)]
        return [other, *tokens, *in_time, "-", "-"]
    in_time = [_factor(ratios["goodput_per_s"]), _divide(limits.get("hit_share"), theirs["hit_share"])]
    best = document["comparisons"].get(document["reference"] or "", {}).get(load, {}).get(other)
    return [other, *tokens, *in_time, _factor(ratios["fleet_j_per_hit"]), _factor(best and best["fleet_j_per_hit"])]


def _factor(ratio: Json | None) -> str:
    return "-" if ratio is None or ratio["mean"] is None else number(ratio["mean"])


def _divide(limit: Json | None, reached: Json) -> str:
    return number(limit["mean"] / reached["mean"]) if limit and limit["mean"] and reached["mean"] else "-"
