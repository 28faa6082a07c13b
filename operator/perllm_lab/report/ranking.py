"""The order of policies over all loads, and the one that is compared with the others."""

from collections.abc import Mapping
from typing import Any

from perllm_lab.report.document import load_key
from perllm_lab.report.style import rank

Json = Mapping[str, Any]


def rank_all(document: Json) -> list[str]:
    """Return all policies, the greatest goodput at the highest load first."""
    order = [policy for load in reversed(document["loads"]) for policy in rank(document, load_key(load))]
    return list(dict.fromkeys(order))


def describe_seeds(document: Json) -> str:
    """Return how many seeds the policies were run with; some may have more than others."""
    cells = [cell for cells in document["policies"].values() for cell in cells.values()]
    counts = {sum(value is not None for value in cell["tasks"]["seeds"]) for cell in cells}
    fewest, most = min(counts), max(counts)
    return f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds, by policy"


def subject_of(document: Json) -> str:
    """Return the policy that is compared with all others."""
    named = document["setting"].get("subject")
    if named in document["policies"]:
        return str(named)
    candidates = [policy for policy in rank_all(document) if not policy.startswith("clairvoyant")]
    return (candidates or rank_all(document))[0]
