"""What a policy decides about, in its own words: one task, n arms, one choice.

Shapes: every array of `Arms` has length n, one entry per arm (model, node), all for the task's model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

MAX_PLAYS = 1e9
"""No process has learned from more outcomes."""

EXCLUDED_TIER = "tier"
EXCLUDED_COMPUTE = "compute"
EXCLUDED_BANDWIDTH = "bandwidth"
EXCLUDED_LATE = "late"
"""Too little chance to be in time there."""

EXCLUDED_HARM = "harm"
"""Likely enough in time, but at the cost of too many deadlines of the tasks that run there."""

EXCLUDED_PRICE = "price"
"""Neither late nor harmful, but the capacity is worth more to the tasks to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFeatures:
    """The task to place.

    Attributes:
        model: the model it asks for.
        prompt_tokens: length of its prompt.
        output_tokens: expected length of its answer.
        input_bytes: payload that the chosen node has to fetch.
        time_left_s: seconds from now to its deadline; negative when that has passed.
        deadline_s: the deadline as it was given, seconds from creation to completion.
    """

    model: str
    prompt_tokens: float
    output_tokens: float
    input_bytes: float
    time_left_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """The arms of one model, with everything known about them now.

    Attributes:
        rows: identity of each arm in the policy's own statistics; stable for the life of the process.
        allowed: whether the task may be sent there at all, with room or without.
        latency_s: predicted time from now to completion.
        energy_j: predicted energy of the task there, transmission and inference.
        compute_used: batch slots in use if the task ran there, itself included.
        compute_capacity: batch slots of the node.
        bandwidth_used_bps: uplink in use if the task ran there, itself included.
        bandwidth_capacity_bps: uplink of the node.
        in_flight: tasks of this model placed there whose outcome is still unknown.
        is_cloud: whether the node is of the cloud tier.
        hit_chance: chance to be complete in time if placed there now.
        harm: tasks running there that are expected to miss their deadline because of it.
        marginal_energy_j: by how much the energy of the fleet is expected to rise, transmission included.
        transmission_j: the transmission's part of it.
        idle_j: the part of it that is the task's share of the idle power of the node; 0 where that is not known.
        work: GPU time of the task there, as a multiple of that of a mean task.
        load: work that the node was given beyond what it can do by now, in nodes full of mean tasks.
        doubt: what is not known of the law of the task's time there: a standard deviation of its logarithm, which
            vanishes with the number of outcomes, unlike what will always scatter.
        plays: how many outcomes such a doubt corresponds to, and tasks in flight that the same law will learn from.
        spread: standard deviation of ln(time) by what will always scatter, the length of the answer above all.
        joule_cost: what a joule costs there now, relative to the mean of all nodes and times; 1 if energy is minimised.
    """

    rows: IntArray
    allowed: BoolArray
    latency_s: FloatArray
    energy_j: FloatArray
    compute_used: FloatArray
    compute_capacity: FloatArray
    bandwidth_used_bps: FloatArray
    bandwidth_capacity_bps: FloatArray
    in_flight: FloatArray
    is_cloud: BoolArray
    hit_chance: FloatArray
    harm: FloatArray
    marginal_energy_j: FloatArray
    transmission_j: FloatArray
    idle_j: FloatArray
    work: FloatArray
    load: FloatArray
    doubt: FloatArray
    plays: FloatArray
    spread: FloatArray
    joule_cost: FloatArray


class Verdict(StrEnum):
    """What to do about a waiting task."""

    START = "start"
    WAIT = "wait"
    REJECT = "reject"


class Term(NamedTuple):
    """A part of the scores, by arm; they add up to the scores when each is taken `sign` times."""

    name: str
    values: FloatArray
    sign: int = 1


def _count_none() -> Mapping[str, int]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a policy chose.

    It is made whenever a task is examined, and explained only for those that are placed: so it holds what an
    explanation needs, and no explanation.

    Attributes:
        arm: position of the chosen arm in `Arms`; None when no arm can take the task now.
        scores: the policy's score of every arm, -inf where excluded.
        reason: why this arm, or none, in a few words without figures that change from one time to the next.
        candidates: number of arms that satisfy every constraint.
        meets_deadline: whether the chosen arm is predicted to meet every constraint.
        slack: normalised slack f(y) of the chosen arm.
        resource_slack: the part of the slack that is known at once: compute and bandwidth.
        explored: whether the arm was chosen to learn about it rather than for its mean.
        verdict: what to do with a task that may be rejected.
        awaited: position of the arm whose room a waiting task waits for; None if for any.
        is_harmless: whether the task would cost others next to nothing on the chosen arm.
        terms: what the scores are made of; empty if the policy has one figure only.
        count_excluded: counts the excluded arms, by the first constraint that excluded them.
    """

    arm: int | None
    scores: FloatArray
    reason: str
    candidates: int = 0
    meets_deadline: bool = False
    slack: float = -1.0
    resource_slack: float = -1.0
    explored: bool = False
    verdict: Verdict = Verdict.START
    awaited: int | None = None
    is_harmless: bool = False
    terms: tuple[Term, ...] = ()
    count_excluded: Callable[[], Mapping[str, int]] = _count_none

    @property
    def excluded(self) -> Mapping[str, int]:
        """Number of arms excluded, by the first constraint that excluded them; counted at every call."""
        return self.count_excluded()


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What became of a choice.

    Attributes:
        model: the model of the arm.
        row: the arm.
        latency_s: creation to completion.
        deadline_s: the task's deadline.
        energy_j: transmission and inference, measured; predicted where it could not be measured.
        prompt_tokens: tokens read.
        output_tokens: tokens written.
        resource_slack: as in the choice.
    """

    model: str
    row: int
    latency_s: float
    deadline_s: float
    energy_j: float
    prompt_tokens: float
    output_tokens: float
    resource_slack: float

    @property
    def is_in_time(self) -> bool:
        """Whether it was complete by its deadline."""
        return self.latency_s <= self.deadline_s


class Policy(Protocol):
    """A rule that chooses an arm for each task and learns from what became of it."""

    name: str

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Choose an arm; pure given the policy's state."""

    def learn(self, feedback: Feedback) -> float:
        """Account for an outcome and return its reward."""

    def learn_miss(self, model: str, row: int, prompt_tokens: float) -> None:
        """Account for a run that was ended at its deadline: how much it wrote is not known, what it read is."""

    def export_state(self, model: str, row: int) -> dict[str, float]:
        """Return what was learned about an arm, as plain numbers."""

    def import_state(self, model: str, row: int, state: Mapping[str, float]) -> None:
        """Restore what `export_state` returned.

        Raises:
            ValueError: the state is not one that this policy exports.
        """

    def forget(self, model: str) -> None:
        """Forget what was learned about the arms of a model."""
