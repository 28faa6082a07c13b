"""The section `events` of a scenario: what happens to its nodes during a run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from math import prod
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from perllm_lab.hardware.fields import Positive, Share

GRADUAL_STEPS = 50


class FleetEvent(BaseModel):
    """Something that happens to nodes at a time given as a share of the run.

    Attributes:
        kind: `loss` removes nodes with all that runs there, `bandwidth` changes the capacity of their uplinks,
            `speed` that of their GPUs at the same power, as a thermal limit does.
        at: When it begins, as a share of the run.
        until: When it is over; never, if not given.
        groups: Names of groups whose nodes are all affected.
        nodes: Names of affected nodes.
        factor: What bandwidth or speed is multiplied by.
        gradual: The factor drifts evenly from 1 at `at` to `factor` at `until`, and stays there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["loss", "bandwidth", "speed"]
    at: Share
    until: Share | None = None
    groups: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    factor: Positive | None = None
    gradual: bool = False

    @model_validator(mode="after")
    def _complete(self) -> "FleetEvent":
        if not self.groups and not self.nodes:
            raise ValueError("name the groups or the nodes that are affected")
        if self.until is not None and self.until <= self.at:
            raise ValueError(f"until must be later than at, which is {self.at:g}")
        if self.kind == "loss" and (self.factor is not None or self.gradual):
            raise ValueError("a loss has neither factor nor gradual")
        if self.kind != "loss" and self.factor is None:
            raise ValueError(f"factor is missing; a {self.kind} event multiplies by it")
        if self.gradual and self.until is None:
            raise ValueError("a gradual event needs until, when the drift is complete")
        return self


class ChangeKind(Enum):
    """What changes at a node."""

    JOIN = "join"
    LOSS = "loss"
    RETURN = "return"
    BANDWIDTH = "bandwidth"
    SPEED = "speed"


@dataclass(frozen=True, slots=True)
class NodeChange:
    """One change of one node at one moment.

    `factor` is the one in force from then on, all events of its kind multiplied; 1 for other kinds.
    """

    at_s: float
    node: str
    kind: ChangeKind
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class _Step:
    at_s: float
    event: int
    factor: float


def timeline(
    events: Sequence[FleetEvent], members: Mapping[str, Sequence[str]], joins_at: Mapping[str, float], run_s: float
) -> list[NodeChange]:
    """Returns all changes of a run of `run_s` seconds, in order of time.

    Args:
        events: What happens.
        members: Names of the nodes of every group.
        joins_at: When nodes join, as a share of the run; 0 is from the start.
        run_s: Length of the run.
    """
    changes = [NodeChange(share * run_s, node, ChangeKind.JOIN) for node, share in joins_at.items() if share > 0.0]
    for (node, kind), steps in _steps(events, members, run_s).items():
        changes += _fold(node, kind, steps)
    return sorted(changes, key=lambda change: change.at_s)


def _steps(
    events: Iterable[FleetEvent], members: Mapping[str, Sequence[str]], run_s: float
) -> dict[tuple[str, str], list[_Step]]:
    by_node: dict[tuple[str, str], list[_Step]] = {}
    for number, event in enumerate(events):
        factors = [_Step(share * run_s, number, factor) for share, factor in _factors(event)]
        named = [node for group in event.groups for node in members[group]]
        for node in dict.fromkeys([*named, *event.nodes]):
            by_node.setdefault((node, event.kind), []).extend(factors)
    return by_node


def _factors(event: FleetEvent) -> list[tuple[float, float]]:
    factor = 0.0 if event.factor is None else event.factor
    if event.gradual and event.until is not None:
        parts = [step / GRADUAL_STEPS for step in range(1, GRADUAL_STEPS + 1)]
        return [(event.at + part * (event.until - event.at), 1.0 + part * (factor - 1.0)) for part in parts]
    return [(event.at, factor)] if event.until is None else [(event.at, factor), (event.until, 1.0)]


def _fold(node: str, kind: str, steps: Iterable[_Step]) -> list[NodeChange]:
    in_force: dict[int, float] = {}
    levels = [(0.0, 1.0)]
    for step in sorted(steps, key=lambda step: step.at_s):
        in_force[step.event] = step.factor
        levels.append((step.at_s, prod(in_force.values())))
    return [_change(at_s, node, kind, level) for (_, before), (at_s, level) in pairwise(levels) if level != before]


def _change(at_s: float, node: str, kind: str, level: float) -> NodeChange:
    if kind == "loss":
        return NodeChange(at_s, node, ChangeKind.RETURN if level else ChangeKind.LOSS)
    return NodeChange(at_s, node, ChangeKind(kind), level)
