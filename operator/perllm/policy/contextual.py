"""cs-ucb: constraint-satisfaction upper confidence bounds with context.

The node where a task adds most to the deadlines met, net of what it costs others, and of its energy.

Notation, for a task i and an arm a
    P(i, a)   chance that i is complete in time if it is sent to a now, the wait for room included: by its favourable
              bound as far as i has slack there, else by its cautious one               (Arms.hit_chance, confidence.py)
    H(i, a)   tasks running on a that are expected to miss their deadline because of i              (Arms.harm)
    E(i, a)   joules by which the energy of the fleet rises, transmission, inference and a share of idle power each with
              its weight omega, times what a joule costs on a
                                             (Arms.transmission_j, Arms.marginal_energy_j, Arms.idle_j, Arms.joule_cost)
    B(i, a)   how much less that may be, what is not known of a's law considered; in mean energies      (confidence.py)
    Q(a)      work that a was given beyond what it can do by now: a virtual queue, in nodes full of
              mean tasks                                                                                 (Arms.load)
    w(i, a)   GPU time of i on a, as a multiple of that of a mean task                                   (Arms.work)
    V         price of a deadline in joules: a multiple of the mean energy of a task, more where capacity is scarce
    S         scarcity: mean of Q over the nodes that may run i, at most 3/4

Objective and rule
    maximise  sum over tasks of (deadlines met) V - energy
    net       N(i, a) = P(i, a) - k H(i, a) - rho Q(a) w(i, a)
    value     N(i, a) - (E(i, a) - B(i, a) mean energy) / V, the net value: deadlines met, net of harm and rent, less
              the energy at its price
    choice    argmax over a of the net value, nodes without room included
    binding   if the best arm has room the task starts there; else it waits for it, and is decided again once there is
              room
    price     V = price (mean energy) / (1 - S)
    admission if no arm has N > floor it would cost more deadlines than it meets to start the task now: it waits, since
              H and Q pass; if no arm has P > floor it is hopeless, and rejected, if it may be

H is the cost to the tasks that run now. The rent rho Q w is the cost to those to come: Q grows while a node is given
more than it can do, so capacity has a price where and while it is scarce, and none elsewhere (drift plus penalty, Neely
2010). Where all nodes are full other tasks would burn the joules that a task saves, so there energy counts less.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from perllm.policy.confidence import find_bounds
from perllm.policy.problem import (
    EXCLUDED_COMPUTE,
    EXCLUDED_HARM,
    EXCLUDED_LATE,
    EXCLUDED_PRICE,
    EXCLUDED_TIER,
    MAX_PLAYS,
    Arms,
    BoolArray,
    Choice,
    Feedback,
    FloatArray,
    TaskFeatures,
    Term,
    Verdict,
)

NAME = "cs-ucb"
FORMER_NAME = "net-hits"

MAX_SCARCITY = 0.75
"""Where more than this is scarce energy still counts a quarter of what it does else."""

MEAN_OVER = 1000
"""How many outcomes the mean energy of a task is an average of."""


@dataclass(frozen=True, slots=True)
class CsUcbParameters:
    """Settings of cs-ucb.

    Attributes:
        harm_weight: k, what the deadline of a running task counts, relative to that of the task to be placed; above 1,
            since tasks that come while it is there are harmed as well.
        rent: rho, deadlines that a mean task pays for a place on a node that was given as much as it can hold.
        price: V in mean energies of a task while nothing is scarce. At 15 a task may cost a fifteenth of a deadline
            more than another of mean energy to save that energy.
        floor: deadlines met, net of harm and rent, below which a task is not worth starting; and chance below which it
            is hopeless.
        waits: whether a task may wait for a better node than those with room.
        confidence: delta, width of the bounds of what is not known yet; 0 takes what is learned for true.
        transmission_weight: omega of the energy of moving inputs.
        inference_weight: omega of the energy of inference.
        idle_weight: omega of the part of it that is idle power of the node, shared by the tasks there.
    """

    harm_weight: float = 1.5
    rent: float = 1.0
    price: float = 15.0
    floor: float = 0.15
    waits: bool = True
    confidence: float = 0.3
    transmission_weight: float = 1.0
    inference_weight: float = 1.0
    idle_weight: float = 1.0


class CsUcb:
    """The default policy."""

    name = NAME

    def __init__(self, parameters: CsUcbParameters | None = None) -> None:
        self._parameters = parameters or CsUcbParameters()
        self._mean_energy_j = 0.0
        self._outcomes = 0

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Choose the arm of the highest net value; see the module's notation."""
        floor = self._parameters.floor
        room = arms.allowed & (arms.compute_used <= arms.compute_capacity)
        open_arms = arms.allowed & (arms.compute_capacity > 0)
        harm = self._parameters.harm_weight * arms.harm
        rent = self._parameters.rent * arms.load * arms.work
        bounds = find_bounds(arms, self._parameters.confidence)
        net: FloatArray = bounds.chance - harm - rent
        worth = open_arms & (net > floor)
        energy_j, mean_j = self._weigh_energy(arms), self._mean_j(arms, open_arms)
        price_j = self._price_j(arms, mean_j, open_arms)
        energy = (energy_j - bounds.saving * mean_j) / price_j
        scores = np.where(open_arms, net - energy, -np.inf)
        expected = scores - bounds.chance + arms.hit_chance - bounds.saving * (mean_j / price_j)
        hopeful = open_arms & (arms.hit_chance > floor)
        arm, verdict, awaited = self._pick(scores, room, worth, is_hopeless=not hopeful.any())
        candidates = int(np.count_nonzero(room & worth))
        return Choice(
            arm=arm,
            meets_deadline=arm is not None and bool(worth[arm] and arms.hit_chance[arm] >= 0.5),
            candidates=candidates,
            scores=scores,
            slack=-1.0 if arm is None else float(net[arm]),
            resource_slack=0.0,
            explored=arm is not None and bool(expected[arm] < expected[room].max()),
            reason=_name_reason(arm, awaited, verdict, price_j),
            verdict=verdict,
            awaited=awaited,
            is_harmless=arm is not None and bool(bounds.chance[arm] - net[arm] <= floor),
            terms=(
                Term("chance", bounds.chance),
                Term("harm", harm, -1),
                Term("rent", rent, -1),
                Term("energy", energy, -1),
            ),
            count_excluded=partial(_count_excluded, arms, room, worth, harm, floor),
        )

    def learn(self, feedback: Feedback) -> float:
        """Count an outcome in the mean energy; return what it was worth, in deadlines."""
        self._outcomes += 1
        self._mean_energy_j += (feedback.energy_j - self._mean_energy_j) / min(self._outcomes, MEAN_OVER)
        return feedback.is_in_time - feedback.energy_j / max(self._parameters.price * self._mean_energy_j, 1e-9)

    def learn_miss(self, model: str, row: int, prompt_tokens: float) -> None:
        """Nothing: a missed deadline teaches how long answers and how slow nodes are, and that the learner learns."""

    def export_state(self, model: str, row: int) -> dict[str, float]:
        """Return the mean energy of a task; it is one for all arms."""
        return {"meanEnergyJoules": self._mean_energy_j, "outcomes": self._outcomes}

    def import_state(self, model: str, row: int, state: Mapping[str, float]) -> None:
        """Restore a mean energy, if it comes of more outcomes than the present one.

        Raises:
            ValueError: a number is missing, not finite, or not one that outcomes lead to.
        """
        energy_j, outcomes = state.get("meanEnergyJoules"), state.get("outcomes")
        if energy_j is None or outcomes is None or not np.isfinite([energy_j, outcomes]).all():
            raise ValueError(f"not a state of {NAME}: {dict(state)}")
        if min(energy_j, outcomes) < 0 or outcomes > MAX_PLAYS:
            raise ValueError(f"not a state of {NAME}: {dict(state)}")
        if outcomes >= self._outcomes:
            self._mean_energy_j, self._outcomes = energy_j, int(outcomes)

    def forget(self, model: str) -> None:
        """Nothing: the mean energy is one for all models."""

    def _weigh_energy(self, arms: Arms) -> FloatArray:
        weights, inference_j = self._parameters, arms.marginal_energy_j - arms.transmission_j
        energy_j: FloatArray = (
            weights.transmission_weight * arms.transmission_j
            + weights.inference_weight * inference_j
            + (weights.idle_weight - weights.inference_weight) * arms.idle_j
        )
        return energy_j * arms.joule_cost

    def _mean_j(self, arms: Arms, open_arms: BoolArray) -> float:
        """Return the mean energy of a task; before the first outcome that of this one."""
        if self._mean_energy_j or not open_arms.any():
            return self._mean_energy_j
        return float(arms.marginal_energy_j[open_arms].mean())

    def _price_j(self, arms: Arms, mean_j: float, open_arms: BoolArray) -> float:
        """Return V."""
        scarcity = min(float(arms.load[open_arms].mean()), MAX_SCARCITY) if open_arms.any() else 0.0
        return max(self._parameters.price * mean_j / (1.0 - scarcity), 1e-9)

    def _pick(
        self, scores: FloatArray, room: BoolArray, worth: BoolArray, *, is_hopeless: bool
    ) -> tuple[int | None, Verdict, int | None]:
        """Return the arm to start on, what to do, and the arm to wait for.

        For a task that must not be rejected there is an arm also with REJECT: the best of those with room.
        """
        if worth.any():
            best = int(np.where(worth, scores, -np.inf).argmax())
            equal = room & worth & (scores >= scores[best])
            if equal.any():
                return int(equal.argmax()), Verdict.START, None
            if self._parameters.waits or not (room & worth).any():
                return None, Verdict.WAIT, best
            return int(np.where(room & worth, scores, -np.inf).argmax()), Verdict.START, None
        if not is_hopeless or not np.isfinite(scores).any():
            return None, Verdict.WAIT, None
        return int(np.where(room, scores, -np.inf).argmax()) if room.any() else None, Verdict.REJECT, None


def _count_excluded(arms: Arms, room: BoolArray, worth: BoolArray, harm: FloatArray, floor: float) -> dict[str, int]:
    """Return how many arms were excluded, by the first of the causes that would have been enough."""
    unworthy = room & ~worth
    late = unworthy & (arms.hit_chance <= floor)
    harmful = unworthy & ~late & (arms.hit_chance - harm <= floor)
    excluded = {
        EXCLUDED_TIER: ~arms.allowed,
        EXCLUDED_COMPUTE: arms.allowed & ~room,
        EXCLUDED_LATE: late,
        EXCLUDED_HARM: harmful,
        EXCLUDED_PRICE: unworthy & ~late & ~harmful,
    }
    counts = {reason: int(np.count_nonzero(mask)) for reason, mask in excluded.items()}
    return {reason: count for reason, count in counts.items() if count}


def _name_reason(arm: int | None, awaited: int | None, verdict: Verdict, price_j: float) -> str:
    if awaited is not None:
        return "a node without room is worth more than those with room"
    if arm is None:
        return "no node is worth starting on now"
    hopeless = "no node is likely to be in time; " if verdict is Verdict.REJECT else ""
    return f"{hopeless}highest net value at {price_j:.0f} J a deadline"
