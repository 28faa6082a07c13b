"""cs-ucb-table: the constraint-satisfaction upper confidence bound of PerLLM (arXiv 2405.14636), kept faithful.

Notation
    a = (model, class, node)   an arm; the service class of a task is the size of its prompt (`CLASS_BOUNDS`)
    t                   plays of all arms of the model and class so far, those in flight included
    L(a)                plays of arm a, those in flight included: feedback comes seconds later, and a burst that
                        counted only finished plays would pile onto one arm. Those in flight are of any class
    R(a)                mean reward of the finished plays of arm a
    y, f(y)             the assignment and its smallest normalised slack (constraints.py, equation 3)
    E_norm              energy over that of a task of its size at the references per token, clipped to [0, 1]

Equations
    reward     r = -E_norm + lambda f(y)                               (2), (4); D in f(y) is the observed latency
    penalty    P(t) = 0 if f(y) >= 0, else -|f(y)|
    index      I(a) = R(a) + delta sqrt(ln t / L(a)) + theta P(t)      (6); +inf while L(a) = 0
    choice     argmax of I over the feasible arms, f(y) >= 0; if there is none, over the arms that keep C2-C4,
               where P(t) makes the least late one attractive
    update     R(a) <- R(a) + (r - R(a)) / N(a),  N(a) = finished plays

The values of lambda, delta and theta in the paper are not known to us; the defaults are ours. A choice is linear in the
number of arms, an update takes constant time.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perllm.policy.arrays import extend
from perllm.policy.constraints import Slacks, measure_slacks, time_slack
from perllm.policy.problem import (
    EXCLUDED_BANDWIDTH,
    EXCLUDED_COMPUTE,
    MAX_PLAYS,
    Arms,
    Choice,
    Feedback,
    FloatArray,
    IntArray,
    TaskFeatures,
    Term,
    Verdict,
)

NAME = "cs-ucb-table"
FORMER_NAME = "cs-ucb"

MEAN_REWARD = "meanReward"
"""Key of R(a) in an exported state; no other policy exports one."""

CLASS_BOUNDS = (512.0, 2048.0)
"""Prompt tokens from which a task is of the next service class. The paper keeps arms per service; here services are
distinguished by the size of their prompts, which is known beforehand and what time and energy depend on."""

CLASSES = len(CLASS_BOUNDS) + 1
FIRST_TRY = "first try of this node, least predicted energy of those untried"


@dataclass(frozen=True, slots=True)
class CsUcbTableParameters:
    """Weights of cs-ucb-table.

    Attributes:
        constraint_weight: lambda, what slack is worth relative to energy. 0.5 lets energy lead and slack break ties.
        exploration: delta, width of the confidence bound. Mean rewards of arms differ by some tenths; 0.1 settles
            within tens of plays.
        penalty_weight: theta, price of a predicted violation when no arm is feasible.
        reference_output_j: joules per token written that count as 1. 10 is the upper end of published figures at
            batch 1 for models of 6 to 9 billion parameters, so rewards use the range.
        reference_prompt_j: the same per token read, 0.15.
    """

    constraint_weight: float = 0.5
    exploration: float = 0.1
    penalty_weight: float = 1.0
    reference_output_j: float = 10.0
    reference_prompt_j: float = 0.15


@dataclass(slots=True)
class _Statistics:
    """Finished plays and mean reward of each arm of one model, by class and row; shape (classes, rows)."""

    plays: IntArray
    mean: FloatArray

    def cover(self, rows: int) -> None:
        self.plays, self.mean = extend(self.plays, rows), extend(self.mean, rows)


class CsUcbTable:
    """The paper's policy."""

    name = NAME

    def __init__(self, parameters: CsUcbTableParameters | None = None) -> None:
        self._parameters = parameters or CsUcbTableParameters()
        self._models: dict[str, _Statistics] = {}
        # Shared by all models without plays: any tenant may ask for a model of any name.
        self._unknown = _begin()

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Choose the arm of the highest index among the feasible ones; see the module's notation."""
        slacks = measure_slacks(task, arms)
        eligible = slacks.feasible if slacks.feasible.any() else slacks.placeable
        mean, bonus, penalty = self._index_terms(task, arms, slacks)
        index = np.where(eligible, mean + bonus + penalty, -np.inf)
        if not eligible.any():
            return Choice(
                arm=None,
                scores=index,
                reason="no node has room for the task now",
                verdict=_judge(slacks),
                count_excluded=lambda: slacks.excluded,
            )
        arm = _first(index, penalty, arms.energy_j)
        known_best = np.argmax(np.where(eligible, mean + penalty, -np.inf))
        return Choice(
            arm=arm,
            scores=index,
            reason=FIRST_TRY if np.isinf(bonus[arm]) else "highest index",
            candidates=int(np.count_nonzero(slacks.feasible)),
            meets_deadline=bool(slacks.feasible[arm]),
            slack=float(slacks.total[arm]),
            resource_slack=float(slacks.resources[arm]),
            explored=bool(np.isinf(bonus[arm]) or arm != known_best),
            verdict=_judge(slacks),
            terms=(Term("mean reward", mean), Term("uncertainty", bonus), Term("lateness", penalty)),
            count_excluded=lambda: slacks.excluded,
        )

    def learn(self, feedback: Feedback) -> float:
        """Update R(a) with the reward of an outcome and return the reward."""
        reward = self._reward(feedback)
        self._update(feedback.model, feedback.row, _classify(feedback.prompt_tokens), reward)
        return reward

    def learn_miss(self, model: str, row: int, prompt_tokens: float) -> None:
        """Update R(a) with the least reward there is, -1 - lambda: what it took is unknown, that it was late is not."""
        self._update(model, row, _classify(prompt_tokens), -1.0 - self._parameters.constraint_weight)

    def export_state(self, model: str, row: int) -> dict[str, float]:
        """Return plays and mean reward of a node, over all classes and of each."""
        statistics = self._statistics(model, row)
        plays, mean = statistics.plays[:, row], statistics.mean[:, row]
        state = {"plays": int(plays.sum()), MEAN_REWARD: float(plays @ mean / max(plays.sum(), 1))}
        for number in range(CLASSES):
            state |= {f"plays{number}": int(plays[number]), f"{MEAN_REWARD}{number}": float(mean[number])}
        return state

    def import_state(self, model: str, row: int, state: Mapping[str, float]) -> None:
        """Restore plays and mean rewards of a node; one that has them over all classes only has them for each.

        Raises:
            ValueError: a number is missing, not finite, or not one that outcomes lead to.
        """
        try:
            plays = [state.get(f"plays{number}", state["plays"]) for number in range(CLASSES)]
            mean = [state.get(f"{MEAN_REWARD}{number}", state[MEAN_REWARD]) for number in range(CLASSES)]
        except KeyError as error:
            raise ValueError(f"not a state of {NAME}: {dict(state)}") from error
        if (
            not 0 <= min(state["plays"], *plays) <= max(state["plays"], *plays) <= MAX_PLAYS
            or not np.isfinite([*state.values(), *plays, *mean]).all()
        ):
            raise ValueError(f"not a state of {NAME}: {dict(state)}")
        statistics = self._statistics(model, row)
        statistics.plays[:, row], statistics.mean[:, row] = plays, mean

    def forget(self, model: str) -> None:
        """Forget plays and mean rewards of a model's arms."""
        self._models.pop(model, None)

    def _index_terms(self, task: TaskFeatures, arms: Arms, slacks: Slacks) -> tuple[FloatArray, FloatArray, FloatArray]:
        statistics, number = self._models.get(task.model, self._unknown), _classify(task.prompt_tokens)
        statistics.cover(int(arms.rows.max(initial=0)) + 1)
        plays = statistics.plays[number, arms.rows] + arms.in_flight
        total = max(float(plays.sum()), 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            bonus = np.where(plays > 0, self._parameters.exploration * np.sqrt(np.log(total) / plays), np.inf)
        penalty = self._parameters.penalty_weight * np.minimum(slacks.total, 0.0)
        return statistics.mean[number, arms.rows], bonus, penalty

    def _update(self, model: str, row: int, number: int, reward: float) -> None:
        statistics, arm = self._statistics(model, row), (number, row)
        statistics.plays[arm] += 1
        statistics.mean[arm] += (reward - statistics.mean[arm]) / statistics.plays[arm]

    def _reward(self, feedback: Feedback) -> float:
        slack = min(float(time_slack(np.array([feedback.latency_s]), feedback.deadline_s)[0]), feedback.resource_slack)
        reference_j = (
            self._parameters.reference_output_j * feedback.output_tokens
            + self._parameters.reference_prompt_j * feedback.prompt_tokens
        )
        energy_norm = min(max(feedback.energy_j / max(reference_j, 1e-9), 0.0), 1.0)
        return -energy_norm + self._parameters.constraint_weight * slack

    def _statistics(self, model: str, row: int) -> _Statistics:
        statistics = self._models.setdefault(model, _begin())
        statistics.cover(row + 1)
        return statistics


def _begin() -> _Statistics:
    return _Statistics(np.zeros((CLASSES, 0), dtype=np.int64), np.zeros((CLASSES, 0)))


def _classify(prompt_tokens: float) -> int:
    return bisect_right(CLASS_BOUNDS, prompt_tokens)


def _first(index: FloatArray, penalty: FloatArray, energy_j: FloatArray) -> int:
    """Return the arm of the highest index; equal ones, such as those never played, by least violation, then energy."""
    best = np.flatnonzero(index == index.max())
    return int(best[np.lexsort((energy_j[best], -penalty[best]))[0]])


def _judge(slacks: Slacks) -> Verdict:
    """Start where all constraints hold; wait while only a lack of room is in the way."""
    if slacks.feasible.any():
        return Verdict.START
    has_hope = slacks.excluded.keys() & {EXCLUDED_COMPUTE, EXCLUDED_BANDWIDTH} or not len(slacks.total)
    return Verdict.WAIT if has_hope else Verdict.REJECT
