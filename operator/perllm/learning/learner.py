"""Outcomes to estimates: the laws of time and energy, the policy's statistics, the expected length of answers.

Everything here lives in memory and is touched from one event loop only. `export_arm` and `import_node` carry the
learned state to and from LLMNodeProfile objects (profiles.py).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perllm.learning.features import energy_features, latency_features
from perllm.learning.law import RELATIVE_NOISE, PooledLaw
from perllm.learning.outcome import Outcome
from perllm.learning.priors import GENERIC, find_prior
from perllm.learning.recent import RecentOutcomes
from perllm.policy.problem import Feedback, FloatArray, IntArray, Policy

DEFAULT_OUTPUT_TOKENS = 200.0
"""Expected answer of a model never seen, as mean of the Azure LLM inference trace 2023 (conversation): 211."""

DEFAULT_OUTPUT_WEIGHT = 5.0
"""How many observed answers outweigh that default."""


@dataclass(slots=True)
class ArmSummary:
    """Plain averages of an arm's outcomes, for people and for the expected answer length."""

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


@dataclass(slots=True)
class _Model:
    """What is known of one model on all nodes."""

    latency: PooledLaw = field(default_factory=lambda: PooledLaw(GENERIC.latency))
    energy: PooledLaw = field(default_factory=lambda: PooledLaw(GENERIC.energy))
    summaries: dict[int, ArmSummary] = field(default_factory=dict)
    assigned: set[int] = field(default_factory=set)
    answers: int = 0
    answer_tokens: float = 0.0

    def add(self, row: int, outcome: Outcome) -> None:
        """Average an outcome in; the sums over all nodes are kept because every decision asks for them."""
        self.summaries.setdefault(row, ArmSummary()).add(outcome)
        self.answers += 1
        self.answer_tokens += outcome.output_tokens

    def restore(self, row: int, summary: ArmSummary) -> None:
        """Replace what was observed on one node."""
        old = self.summaries.get(row, ArmSummary())
        self.summaries[row] = summary
        self.answers += summary.count - old.count
        self.answer_tokens += summary.count * summary.output_tokens - old.count * old.output_tokens


class Learner:
    """Learns from outcomes; predicts tasks.

    Attributes:
        dirty: nodes whose learned state changed since it was last taken for saving.
    """

    def __init__(self, policy: Policy) -> None:
        self.dirty: set[str] = set()
        self._policy = policy
        self._rows: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._gpu_types: list[str] = []
        self._group_of_row: list[int] = []
        self._models: dict[str, _Model] = defaultdict(_Model)
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

    def predict(
        self, model: str, rows: IntArray, prompt_tokens: float, output_tokens: float, occupancy: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return seconds from binding to completion (without transfer) and joules of inference, each of shape (n,).

        Args:
            model: the model.
            rows: the nodes, shape (n,).
            prompt_tokens: tokens to read.
            output_tokens: tokens to write.
            occupancy: tasks that will run on each node, this one included, shape (n,).
        """
        known = self._assigned(model, rows)
        latency_s = known.latency.predict(rows, latency_features(prompt_tokens, output_tokens, occupancy))
        energy_j = known.energy.predict(rows, energy_features(prompt_tokens, output_tokens, occupancy))
        return latency_s, energy_j

    def latency_deviation_s(
        self, model: str, row: int, prompt_tokens: float, output_tokens: float, occupancy: float
    ) -> float:
        """Return the standard deviation of a task's predicted seconds: of the law, and of tasks around it."""
        rows = np.array([row])
        features = latency_features(prompt_tokens, output_tokens, np.array([occupancy]))
        law = self._assigned(model, rows).latency
        noise_s = RELATIVE_NOISE * float(law.predict(rows, features)[0])
        return float(np.hypot(law.deviation(row, features[0]), noise_s))

    def expected_output_tokens(self, model: str) -> float:
        """Return the mean length of the model's answers so far, drawn towards a published mean while there are few."""
        known = self._models.get(model)
        count, tokens = (known.answers, known.answer_tokens) if known else (0, 0.0)
        return (DEFAULT_OUTPUT_WEIGHT * DEFAULT_OUTPUT_TOKENS + tokens) / (DEFAULT_OUTPUT_WEIGHT + count)

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
        model = self._assigned(outcome.model, np.array([row]))
        occupancy = np.array([max(outcome.occupancy, 1.0)])
        features = latency_features(outcome.prompt_tokens, outcome.output_tokens, occupancy)[0]
        model.latency.learn(row, features, outcome.run_s)
        if outcome.inference_energy_j is not None:
            features = energy_features(outcome.prompt_tokens, outcome.output_tokens, occupancy)[0]
            model.energy.learn(row, features, outcome.inference_energy_j)
        model.add(row, outcome)
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

    def summaries(self, node: str) -> dict[str, ArmSummary]:
        """Return what was observed on a node, by model."""
        row = self._rows[node]
        return {name: model.summaries[row] for name, model in self._models.items() if row in model.summaries}

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
        }

    def import_node(
        self, node: str, arms: Sequence[tuple[str, ArmSummary, dict[str, Any]]], recent: RecentOutcomes
    ) -> None:
        """Take back a node's learned state: (model, summary, state) of each arm, and which outcomes it contains.

        A state whose "policy" is None leaves the policy as it is.

        Raises:
            ValueError: a state does not fit this version; then the whole node stays as it was.
        """
        before: list[tuple[str, dict[str, Any]]] = []
        try:
            for model, _, state in arms:
                self._assigned(model, np.array([self._rows[node]]))
                before.append((model, self.export_arm(node, model)))
                self._import_state(node, model, state)
        except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
            for model, state in before:
                self._import_state(node, model, state)
            raise ValueError(f"not a state of this version: {error!r}") from error
        for model, summary, _ in arms:
            self._models[model].restore(self._rows[node], summary)
        self._recent[node] = recent

    def _import_state(self, node: str, model: str, state: dict[str, Any]) -> None:
        row, known = self._rows[node], self._models[model]
        if state["policy"] is not None:
            self._policy.import_state(model, row, state["policy"])
        known.latency.import_moments(row, state["latency"])
        known.energy.import_moments(row, state["energy"])

    def _assigned(self, model: str, rows: IntArray) -> _Model:
        """Return the model with every row in `rows` known to its laws."""
        known = self._models[model]
        if len(known.assigned) < len(self._rows):
            for row in rows.tolist():
                if row not in known.assigned:
                    self._assign(known, row)
        return known

    def _assign(self, known: _Model, row: int) -> None:
        group = self._group_of_row[row]
        prior = find_prior(self._gpu_types[group])
        known.latency.set_prior(group, prior.latency)
        known.energy.set_prior(group, prior.energy)
        known.latency.assign(row, group)
        known.energy.assign(row, group)
        known.assigned.add(row)
