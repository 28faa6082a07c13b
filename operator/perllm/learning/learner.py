"""Outcomes to estimates: the laws of time and energy, the policy's statistics, the expected length of answers.

Everything here lives in memory and is touched from one event loop only. `export_arm` and `import_node` carry the
learned state to and from LLMNodeProfile objects (profiles.py).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perllm.learning.features import (
    FIXED_FEATURES,
    LEAST_LATENCY_SHARES,
    MAX_READING,
    PROMPT_UNIT,
    energy_features,
    latency_features,
)
from perllm.learning.law import PooledLaw
from perllm.learning.lengths import Length, LengthLaw
from perllm.learning.outcome import Ended, Outcome
from perllm.learning.priors import GENERIC, LOAD_S, find_prior
from perllm.learning.recent import RecentOutcomes
from perllm.policy.problem import Feedback, FloatArray, IntArray, Policy

LOAD_STEP = 0.3
"""Weight of the newest run on a node that had to load its model, in the mean loading time of its type."""

ARRIVALS_AVERAGED = 200.0
"""How many arrivals the mean task is an average of."""

UNPROVEN = 0.02
"""Least share of the loading time that a node still needs until a task has completed there: what runs until then tells
of the loading, not of the law."""

PROVEN_WEIGHT = 3.0
"""Outcomes after which a law of time is believed as to how far an ended task had come."""

KINDS = 2
"""Shapes of length per model: without and with a hint."""


@dataclass(slots=True)
class ArmSummary:
    """Plain averages of an arm's outcomes, for people."""

    count: int = 0
    latency_s: float = 0.0
    energy_j: float = 0.0
    energy_count: int = 0
    output_tokens: float = 0.0
    met: int = 0
    last_outcome_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Average an outcome in."""
        self.count += 1
        self.latency_s += (outcome.latency_s - self.latency_s) / self.count
        self.output_tokens += (outcome.output_tokens - self.output_tokens) / self.count
        self.met += outcome.latency_s <= outcome.deadline_s
        self.last_outcome_s = max(self.last_outcome_s, outcome.finished_s)
        if outcome.energy_j is not None:
            self.energy_count += 1
            self.energy_j += (outcome.energy_j - self.energy_j) / self.energy_count


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """What is known of an arm, for people.

    Attributes:
        latency: coefficients of a task's seconds, in the order of its features.
        load_s: seconds to load the model.
        latency_spread: standard deviation of ln(actual / predicted) seconds.
        energy: coefficients of its joules.
        energy_spread: standard deviation of ln(actual / predicted) joules.
        median_tokens: of answers without a hint, to a prompt of mean length.
        length_spread: standard deviation of ln(actual / median) tokens.
    """

    latency: tuple[float, ...]
    load_s: float
    latency_spread: float
    energy: tuple[float, ...]
    energy_spread: float
    median_tokens: float
    length_spread: float


@dataclass(slots=True)
class ModelLaws:
    """What is known of one model on all nodes.

    Attributes:
        latency: seconds of a run, without the transfer of its input.
        energy: joules of inference.
        lengths: of its answers.
        mean_prompt: tokens read by a mean task lately.
        mean_output: tokens written by it.
        load_s: by row, how long its GPU type takes to load it.
        loads_from_s: by row, when the node began to load it: -inf where it has served it, inf where it never did.
    """

    lengths: LengthLaw
    latency: PooledLaw = field(default_factory=lambda: PooledLaw(GENERIC.latency, LEAST_LATENCY_SHARES))
    energy: PooledLaw = field(default_factory=lambda: PooledLaw(GENERIC.energy))
    summaries: dict[int, ArmSummary] = field(default_factory=dict)
    assigned: set[int] = field(default_factory=set)
    mean_prompt: float = 1000.0
    mean_output: float = 200.0
    load_s: FloatArray = field(default_factory=lambda: np.zeros(0))
    loads_from_s: FloatArray = field(default_factory=lambda: np.zeros(0))

    def cover(self, rows: int) -> None:
        """Make room for `rows` rows."""
        missing = rows - len(self.loads_from_s)
        if missing > 0:
            self.loads_from_s = np.concatenate([self.loads_from_s, np.full(missing, np.inf)])
            self.load_s = np.concatenate([self.load_s, np.full(missing, LOAD_S)])

    def alike(self, row: int) -> IntArray:
        """Return the rows of the nodes with the same GPU type, itself included."""
        return np.flatnonzero(self.latency.group_of_row == self.latency.group_of_row[row])

    def cold(self, rows: IntArray, now_s: float) -> FloatArray:
        """Return which share of the loading time each node still needs, shape (n,)."""
        loads_from_s = self.loads_from_s[rows]
        if np.isneginf(loads_from_s).all():
            return np.zeros(len(rows))
        left: FloatArray = 1.0 - np.maximum(now_s - loads_from_s, 0.0) / np.maximum(self.load_s[rows], 1e-9)
        return np.where(np.isneginf(loads_from_s), 0.0, np.clip(left, UNPROVEN, 1.0))


class Learner:
    """Learns from outcomes; predicts tasks.

    Attributes:
        dirty: nodes whose learned state changed since it was last taken for saving.
        shapes: of the lengths of all models, by kind.
    """

    def __init__(self, policy: Policy) -> None:
        self.dirty: set[str] = set()
        self._policy = policy
        self._rows: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._gpu_types: list[str] = []
        self._group_of_row: list[int] = []
        self._models: dict[str, ModelLaws] = {}
        self.shapes = np.zeros((0, 0))
        self._recent: dict[str, RecentOutcomes] = defaultdict(RecentOutcomes)

    def register(self, node: str, gpu_type: str) -> int:
        """Return the row of a node, the same for the life of the process; `gpu_type` decides who it learns from."""
        group = self._groups.setdefault(gpu_type, len(self._groups))
        if group == len(self._gpu_types):
            self._gpu_types.append(gpu_type)
        row = self._rows.setdefault(node, len(self._rows))
        if row == len(self._group_of_row):
            self._group_of_row.append(group)
        elif self._group_of_row[row] != group:
            self._group_of_row[row] = group
            for model in self._models.values():
                model.assigned.discard(row)
        return row

    def laws(self, model: str, rows: IntArray) -> ModelLaws:
        """Return the laws of a model, with every row in `rows` known to them."""
        known = self._models.get(model) or self._begin(model)
        if len(known.assigned) < len(self._rows):
            known.cover(len(self._rows))
            for row in rows.tolist():
                if row not in known.assigned:
                    self._assign(known, row)
        return known

    def expect_length(self, model: str, prompt_tokens: float, hint_tokens: float | None) -> Length:
        """Return what is known of an answer before it is begun."""
        known = self._models.get(model) or self._begin(model)
        return known.lengths.predict(prompt_tokens, hint_tokens)

    def note_arrival(self, model: str, prompt_tokens: float, output_tokens: float) -> None:
        """Take a task that has arrived into the mean task of its model; unlike outcomes, arrivals are not selected."""
        known = self._models.get(model) or self._begin(model)
        known.mean_prompt += (prompt_tokens - known.mean_prompt) / ARRIVALS_AVERAGED
        known.mean_output += (output_tokens - known.mean_output) / ARRIVALS_AVERAGED

    def length_kind(self, model: str, *, has_hint: bool) -> int:
        """Return the number of a length's shape."""
        known = self._models.get(model) or self._begin(model)
        return known.lengths.first_kind + int(has_hint)

    def warm(self, node: str, model: str) -> None:
        """Note that a node has the model loaded."""
        row = self._rows[node]
        self.laws(model, np.array([row])).loads_from_s[row] = -np.inf

    def load(self, row: int, model: str, now_s: float) -> None:
        """Note that a node is about to load the model, unless it has it or does so already."""
        loads_from_s = self.laws(model, np.array([row])).loads_from_s
        loads_from_s[row] = min(loads_from_s[row], now_s)

    def cool(self, node: str) -> None:
        """Note that a node was restarted and has no model loaded."""
        row = self._rows.get(node)
        for known in self._models.values():
            if row is not None and row < len(known.loads_from_s):
                known.loads_from_s[row] = np.inf

    def has_learned(self, outcome: Outcome) -> bool:
        """Whether this outcome is already part of the learned state."""
        return self._recent[outcome.node].contains(outcome.task_id, outcome.finished_s)

    def learn(self, outcome: Outcome) -> float | None:
        """Learn from an outcome and return its reward; None when it was learned before.

        The node must have been registered.
        """
        if self.has_learned(outcome):
            return None
        row = self._rows[outcome.node]
        known = self.laws(outcome.model, np.array([row]))
        occupancy, prompt, output = max(outcome.occupancy, 1.0), outcome.prompt_tokens, outcome.output_tokens
        others = _readable_tokens(outcome.others_tokens, outcome.run_s, known.latency.coefficients[row])
        features = latency_features(prompt, others, output, occupancy)
        if outcome.cold > 0.0:
            self._learn_load(known, row, outcome, float(known.latency.coefficients[row] @ features))
        else:
            known.latency.learn(row, features, outcome.run_s, outcome.run_error)
        if outcome.inference_energy_j is not None:
            features = energy_features(prompt, output, occupancy)
            known.energy.learn(row, features, outcome.inference_energy_j, outcome.energy_error)
        if outcome.is_length_known:
            known.lengths.learn(prompt, outcome.hint_tokens, output)
            self._publish(known)
        known.loads_from_s[row] = -np.inf
        known.summaries.setdefault(row, ArmSummary()).add(outcome)
        self._recent[outcome.node].add(outcome.task_id, outcome.finished_s)
        self.dirty.add(outcome.node)
        return self._policy.learn(
            Feedback(
                model=outcome.model,
                row=row,
                latency_s=outcome.latency_s,
                deadline_s=outcome.deadline_s,
                energy_j=outcome.predicted_energy_j if outcome.energy_j is None else outcome.energy_j,
                prompt_tokens=outcome.prompt_tokens,
                output_tokens=outcome.output_tokens,
                resource_slack=outcome.resource_slack,
            )
        )

    def learn_ended(self, ended: Ended) -> bool:
        """Learn from a run that was ended at its deadline; return False when that was learned before.

        Its answer is longer than it came, and its deadline was missed. The node must have been registered. How far it
        came is not known while the model was loaded, nor by a law without outcomes.
        """
        recent, row = self._recent[ended.node], self._rows[ended.node]
        if recent.contains(ended.task_id, ended.ended_s):
            return False
        known = self.laws(ended.model, np.array([row]))
        if ended.cold <= 0.0:
            self._learn_censored(known, row, ended)
        self._policy.learn_miss(ended.model, row)
        recent.add(ended.task_id, ended.ended_s)
        self.dirty.add(ended.node)
        return True

    def summaries(self, node: str) -> dict[str, ArmSummary]:
        """Return what was observed on a node, by model."""
        row = self._rows[node]
        return {name: model.summaries[row] for name, model in self._models.items() if row in model.summaries}

    def estimate(self, node: str, model: str) -> ArmEstimate:
        """Return what is known of an arm."""
        row = self._rows[node]
        known = self.laws(model, np.array([row]))
        length = known.lengths.predict(known.mean_prompt, None)
        return ArmEstimate(
            latency=tuple(known.latency.coefficients[row].tolist()),
            load_s=float(known.load_s[row]),
            latency_spread=known.latency.deviation(row),
            energy=tuple(known.energy.coefficients[row].tolist()),
            energy_spread=known.energy.deviation(row),
            median_tokens=float(np.median(length.points)),
            length_spread=length.spread,
        )

    def recent(self, node: str) -> RecentOutcomes:
        """Return the outcomes that the node's learned state was last made from."""
        return self._recent[node]

    def export_arm(self, node: str, model: str) -> dict[str, Any]:
        """Return the machine part of an arm's learned state."""
        row, known = self._rows[node], self._models[model]
        return {
            "policy": self._policy.export_state(model, row),
            "latency": known.latency.export_moments(row),
            "energy": known.energy.export_moments(row),
            "lengths": known.lengths.export_state(),
            "loadSeconds": float(known.load_s[row]),
            "warm": bool(np.isneginf(known.loads_from_s[row])),
        }

    def import_node(
        self, node: str, arms: Sequence[tuple[str, ArmSummary, dict[str, Any]]], recent: RecentOutcomes
    ) -> None:
        """Take back a node's learned state: (model, summary, state) of each arm, and which outcomes it contains.

        A state whose "policy" is None leaves the policy as it is.

        Raises:
            ValueError: a state does not fit this version; then the whole node stays as it was.
        """
        try:
            for _, _, state in arms:
                _check_state(state)
            self._import_policy(node, arms)
        except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
            raise ValueError(f"not a state of this version: {error!r}") from error
        for model, summary, state in arms:
            self._import_laws(node, model, state)
            self._models[model].summaries[self._rows[node]] = summary
            self._publish(self._models[model])
        self._recent[node] = recent

    def _learn_censored(self, known: ModelLaws, row: int, ended: Ended) -> None:
        written = _written_tokens(ended, known.latency.coefficients[row])
        if written > 1.0 and known.latency.weight(row) >= PROVEN_WEIGHT:
            known.lengths.learn_censored(ended.prompt_tokens, ended.hint_tokens, written)
            self._publish(known)
        foreseen_s = ended.foreseen_fixed_s + max(written, 1.0) * ended.foreseen_token_s
        known.latency.account(row, float(np.log(max(ended.run_s, 1e-6) / max(foreseen_s, 1e-6))))

    def _import_policy(self, node: str, arms: Sequence[tuple[str, ArmSummary, dict[str, Any]]]) -> None:
        row = self._rows[node]
        before = [(model, self._policy.export_state(model, row)) for model, _, _ in arms]
        try:
            for model, _, state in arms:
                if state["policy"] is not None:
                    self._policy.import_state(model, row, state["policy"])
        except Exception:
            for model, known in before:
                self._policy.import_state(model, row, known)
            raise

    def _import_laws(self, node: str, model: str, state: dict[str, Any]) -> None:
        row = self._rows[node]
        known = self.laws(model, np.array([row]))
        known.latency.import_moments(row, state["latency"])
        known.energy.import_moments(row, state["energy"])
        known.lengths.import_better(state["lengths"])
        known.load_s[known.alike(row)] = float(state["loadSeconds"])
        known.loads_from_s[row] = -np.inf if state["warm"] else np.inf

    def _begin(self, model: str) -> ModelLaws:
        first_kind = KINDS * len(self._models)
        known = self._models[model] = ModelLaws(LengthLaw(first_kind))
        self.shapes = np.concatenate([one.lengths.shapes for one in self._models.values()])
        return known

    def _learn_load(self, known: ModelLaws, row: int, outcome: Outcome, warm_s: float) -> None:
        """Move the loading time of a GPU type towards what a run took beyond one on a node that has the model."""
        seen_s = max(outcome.run_s - warm_s, 0.0) / outcome.cold
        load_s = known.load_s[row] + LOAD_STEP * outcome.cold * (seen_s - known.load_s[row])
        known.load_s[known.alike(row)] = load_s

    def _publish(self, known: ModelLaws) -> None:
        first_kind = known.lengths.first_kind
        self.shapes[first_kind : first_kind + KINDS] = known.lengths.shapes

    def _assign(self, known: ModelLaws, row: int) -> None:
        group = self._group_of_row[row]
        prior = find_prior(self._gpu_types[group])
        known.latency.set_prior(group, prior.latency)
        known.energy.set_prior(group, prior.energy)
        known.latency.assign(row, group)
        known.energy.assign(row, group)
        known.load_s[row] = known.load_s[known.alike(row)[0]]
        known.assigned.add(row)


def _check_state(state: dict[str, Any]) -> None:
    """Raise unless laws can take back a state; what is already known is not touched."""
    for prior, moments in ((GENERIC.latency, state["latency"]), (GENERIC.energy, state["energy"])):
        law = PooledLaw(prior)
        law.assign(0, 0)
        law.import_moments(0, moments)
    LengthLaw().import_better(state["lengths"])
    if not 0.0 <= float(state["loadSeconds"]) < np.inf or not isinstance(state["warm"], bool):
        raise ValueError("loadSeconds or warm is none")


def _written_tokens(ended: Ended, coefficients: FloatArray) -> float:
    """Return how many tokens a run should have written by its end, by the law and what it met on its node."""
    others = _readable_tokens(ended.others_tokens, ended.run_s, coefficients)
    parts = coefficients * latency_features(ended.prompt_tokens, others, 1.0, max(ended.occupancy, 1.0))
    fixed_s, token_s = float(parts[:FIXED_FEATURES].sum()), float(parts[FIXED_FEATURES:].sum())
    return (ended.run_s - fixed_s) / max(token_s, 1e-9)


def _readable_tokens(tokens: float, run_s: float, coefficients: FloatArray) -> float:
    """Return how many of others' prompt tokens a node can have read during a run, given those that were to be read."""
    return min(tokens, MAX_READING * run_s / max(float(coefficients[1]), 1e-9) * PROMPT_UNIT)
