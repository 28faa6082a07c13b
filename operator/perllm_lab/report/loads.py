"""Loads in words: a load is a share of what the whole fleet could do, which says little about one tier of it."""

from collections.abc import Mapping
from typing import Any

from perllm_lab.report.numbers import number

FLEET = "fleet"


def describe_load(document: Mapping[str, Any], load: str) -> str:
    """Return a load with its tasks per second, and as a share of the capacity of the fleet and of each tier."""
    capacity = document["capacity"]
    if FLEET not in capacity:
        return load
    rate_per_s = float(load) * capacity[FLEET]
    shares = ", ".join(f"{number(rate_per_s / each)} of the {name}" for name, each in capacity.items() if each)
    return f"{load}: {number(rate_per_s)} tasks/s, {shares}"
