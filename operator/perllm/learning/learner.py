"""Outcomes to estimates: the laws of time and energy, the policy's statistics, the expected length of answers.

Everything here lives in memory and is touched from one event loop only. `export_arm` and `import_node` carry the
learned state to and from where it is stored (node_state.py).
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from perllm.learning.features import latency_features
from perllm.learning.lengths import Length, LengthLaw
from perllm.learning.model_laws import ArmEstimate, ArmSummary, ModelLaws
from perllm.learning.model_table import ModelTable
from perllm.learning.node_rows import NodeRows
from perllm.learning.outcome import Ended, ImplausibleFigure, Outcome
from perllm.learning.priors import LOAD_S, Prior, find_prior
from perllm.learning.recent import RecentOutcomes
from perllm.learning.revisions import Revisions
from perllm.learning.run_learning import learn_run, limit_readable
from perllm.policy.problem import Feedback, FloatArray, IntArray, Policy

MAX_ARMS = 64
"""Models whose outcomes on one node are remembered; at 2 kB each a node has a tenth of what can be stored."""

MAX_ENERGY_RATIO = 20.0
"""A task whose meter says that it took more times as much as expected, or as little, counts in the policy's mean as if
this were so: a meter that once says 1e9 J would outweigh a million tasks."""

Arm = tuple[str, ArmSummary, dict[str, Any]]
"""A model, what was observed of it on a node, and the machine part of what was learned."""


class Learner:
    """Learns from outcomes; predicts tasks.

    Args:
        policy: whose statistics are kept alongside the laws.
        count_discarded: called with the reason for every implausible outcome, which is discarded.
        find_prior: returns what the laws of a GPU type start from.

    Attributes:
        revisions: of the learned states of nodes.
        forgotten: how many models were forgotten on each node, since there were too many.
    """

    def __init__(
        self,
        policy: Policy,
        count_discarded: Callable[[ImplausibleFigure], None] | None = None,
        find_prior: Callable[[str], Prior] = find_prior,
    ) -> None:
        self.revisions = Revisions()
        self.forgotten: dict[str, int] = defaultdict(int)
        self._policy = policy
        self._count_discarded = count_discarded
        self._find_prior = find_prior
        self._rows = NodeRows()
        self._models = ModelTable()
        self._arms: dict[int, dict[str, None]] = defaultdict(dict)
        self._recent: dict[str, RecentOutcomes] = defaultdict(RecentOutcomes)

    @property
    def shapes(self) -> FloatArray:
        """The shapes of the lengths of all models, by kind."""
        return self._models.shapes

    def register(self, node: str, gpu_type: str) -> int:
        """Return the row of a node, the same for the life of the process; it learns from others of its `gpu_type`."""
        return self._rows.register(node, gpu_type)

    def find_gpu_type(self, node: str) -> str | None:
        """Return the GPU type that a node was registered with last; None if it was not."""
        row = self._rows.find(node)
        return None if row is None else self._rows.gpu_type(row)

    def knows(self, node: str) -> bool:
        """Whether a node was registered."""
        return node in self._rows

    def laws(self, model: str, rows: IntArray) -> ModelLaws:
        """Return the laws of a model, with every row in `rows` known to them; to be read only."""
        return self._cover(self._models.find(model))

    def expect_length(self, model: str, prompt_tokens: float, hint_tokens: float | None, service: str = "") -> Length:
        """Return what is known of an answer before it is begun."""
        return self._models.find(model).lengths.predict(prompt_tokens, hint_tokens, service)

    def note_arrival(self, model: str, prompt_tokens: float, output_tokens: float) -> None:
        """Count a task that has arrived in the usual task of its model."""
        self._models.usual(model).add(prompt_tokens, output_tokens)

    def length_kind(self, model: str, *, has_hint: bool) -> int:
        """Return the number of a length's shape."""
        return self._models.find(model).lengths.first_kind + int(has_hint)

    def warm(self, node: str, model: str) -> None:
        """Note that a node has the model loaded."""
        row = self._rows[node]
        self._know(model, row).note_loaded(row)

    def unload(self, node: str, model: str) -> None:
        """Note that a node does not have the model in memory."""
        row = self._rows[node]
        self._know(model, row).note_unloaded(row)

    def load(self, row: int, model: str, now_s: float) -> None:
        """Note that a node is about to load the model, unless it is loaded or loading."""
        self._know(model, row).note_loading(row, now_s)

    def forget_load(self, row: int, model: str, since_s: float) -> None:
        """Note that a node has not begun to load a model at that time: the task was never sent."""
        known = self._models.find(model)
        if row < len(known.loads_from_s) and known.loads_from_s[row] == since_s:
            known.note_unloaded(row)

    def trim(self, in_use: Collection[str]) -> None:
        """Forget models when there are too many, but not those `in_use`: tasks of them are in flight."""
        for model in self._models.surplus(in_use):
            for row in self._models.forget(model).summaries:
                del self._arms[row][model]
                self.forgotten[self._rows.names[row]] += 1
                self.revisions.change(self._rows.names[row])
            self._policy.forget(model)

    def cool(self, node: str) -> None:
        """Note that a node was restarted and has no model loaded."""
        row = self._rows.find(node)
        for known in self._models:
            if row is not None and row < len(known.loads_from_s):
                known.note_unloaded(row)

    def has_learned(self, outcome: Outcome) -> bool:
        """Whether this outcome is already part of the learned state."""
        return self._recent[outcome.run.node].contains(outcome.run.task_id, outcome.finished_s)

    def learn(self, outcome: Outcome, own: Feedback | None = None) -> float | None:
        """Learn from an outcome and return its reward; None when it was learned before or is implausible.

        The node must have been registered.

        Args:
            outcome: the outcome.
            own: what the policy's own choice came to, if the task ran by another one.
        """
        if self.has_learned(outcome) or self._discards(outcome):
            return None
        row = self._rows[outcome.run.node]
        known = self._know(outcome.run.model, row)
        if outcome.is_sequential:
            learn_run(known, row, outcome)
        if outcome.is_length_known:
            known.lengths.learn(
                outcome.run.prompt_tokens, outcome.run.hint_tokens, outcome.output_tokens, outcome.run.service
            )
            self._models.publish(known)
        if row not in known.unloaded:
            known.note_loaded(row)
        known.summaries.setdefault(row, ArmSummary()).add(outcome)
        self._remember(row, outcome.run.model)
        self._recent[outcome.run.node].add(outcome.run.task_id, outcome.finished_s)
        self.revisions.change(outcome.run.node)
        return self._policy.learn(own or judge_choice(outcome, row))

    def learn_ended(self, ended: Ended) -> bool:
        """Learn from a run that was ended at its deadline; return False when it was learned before or is implausible.

        Its answer is longer than it came, and its deadline was missed. The node must have been registered. How far it
        came is not known while the model was loaded, nor by a law without outcomes.
        """
        recent, row = self._recent[ended.run.node], self._rows[ended.run.node]
        if recent.contains(ended.run.task_id, ended.ended_s) or self._discards(ended):
            return False
        known = self._know(ended.run.model, row)
        if ended.is_one_answer and ended.run.cold <= 0.0 and ended.run.run_s > 0.0:
            self._learn_from_end(known, row, ended)
        self._policy.learn_miss(ended.run.model, row, ended.run.prompt_tokens)
        recent.add(ended.run.task_id, ended.ended_s)
        self.revisions.change(ended.run.node)
        return True

    def summaries(self, node: str) -> dict[str, ArmSummary]:
        """Return what was observed on a node, by model; those with the oldest outcomes first."""
        row = self._rows[node]
        return {model: self._models.find(model).summaries[row] for model in self._arms[row]}

    def estimate(self, node: str, model: str) -> ArmEstimate:
        """Return what is known of an arm."""
        row = self._rows[node]
        known = self.laws(model, np.array([row]))
        length = known.lengths.predict(known.usual.prompt_tokens, None)
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

    def shorten_recent(self, node: str, now_s: float) -> None:
        """Keep only until when the outcomes of a node finished that is gone for long; `now_s` is the Unix time."""
        if node in self._recent:
            self._recent[node] = self._recent[node].shortened(now_s)

    def export_arm(self, node: str, model: str) -> dict[str, Any]:
        """Return the machine part of an arm's learned state."""
        row = self._rows[node]
        known = self.laws(model, np.array([row]))
        return {
            "policy": self._policy.export_state(model, row),
            "latency": known.latency.export_moments(row),
            "energy": known.energy.export_moments(row),
            "lengths": known.lengths.export_state(),
            "loadSeconds": float(known.load_s[row]),
            "warm": bool(np.isneginf(known.loads_from_s[row])),
        }

    def import_node(self, node: str, arms: Sequence[Arm], recent: RecentOutcomes) -> None:
        """Restore a node's learned state: its arms, and which outcomes it contains.

        A state whose "policy" is None leaves the policy as it is. The node must have been registered.

        Raises:
            ValueError: a state cannot have been learned; then nothing is changed.
        """
        row = self._rows[node]
        for model, _, state in arms:
            known = self._cover(self._models.find(model))
            try:
                _check_laws(state, known, row, recent.latest_s)
            except ValueError as error:
                raise ValueError(f"model {model}: {error}") from error
        self._import_policy(row, arms)
        for model, summary, state in sorted(arms, key=lambda arm: arm[1].last_outcome_s):
            known = self._know(model, row)
            self._import_laws(known, row, state, recent.latest_s)
            known.summaries[row] = summary
            self._models.publish(known)
            self._remember(row, model)
        self._recent[node] = recent

    def _learn_from_end(self, known: ModelLaws, row: int, ended: Ended) -> None:
        lengths, shares = known.lengths.possible(ended.run.prompt_tokens, ended.run.hint_tokens, ended.run.service)
        run, others = ended.run, limit_readable(ended.run, known.latency.coefficients[row])
        occupancy = max(run.occupancy, 1.0)
        none, one = (
            latency_features(run.prompt_tokens, others, tokens, occupancy, pace=run.pace, is_served=run.is_served)
            for tokens in (0.0, 1.0)
        )
        features = none + lengths[:, None] * (one - none)
        explained = known.latency.explain(row, features, shares, ended.run.run_s)
        expected_s = features @ known.latency.coefficients[row]
        foreseen_s = np.maximum(ended.foreseen_fixed_s + lengths * ended.foreseen_token_s, 1e-6)
        errors = np.log(np.maximum(expected_s, 1e-6) / foreseen_s) + explained.excess
        known.latency.account(row, float(explained.shares @ errors))
        known.latency.learn_ended(row, features, explained)
        known.lengths.learn_ended(ended.run.prompt_tokens, ended.run.hint_tokens, explained.shares, ended.run.service)
        self._models.publish(known)

    def _import_policy(self, row: int, arms: Sequence[Arm]) -> None:
        before = [(model, self._policy.export_state(model, row)) for model, _, _ in arms]
        try:
            for model, _, state in arms:
                if state["policy"] is not None:
                    self._policy.import_state(model, row, state["policy"])
        except ValueError:
            for model, known in before:
                self._policy.import_state(model, row, known)
            raise

    def _import_laws(self, known: ModelLaws, row: int, state: dict[str, Any], learned_s: float) -> None:
        """Restore the laws of a model that were stored with the outcome of a node at that Unix time, its latest."""
        if known.latency.import_moments(row, state["latency"], learned_s):
            known.load_s[known.alike(row)] = state["loadSeconds"]
        known.energy.import_moments(row, state["energy"], learned_s)
        known.lengths.import_better(state["lengths"], learned_s)
        known.loads_from_s[row] = -np.inf if state["warm"] else np.inf

    def _know(self, model: str, row: int) -> ModelLaws:
        """Return the laws of a model about which something is to be learned on the node of `row`."""
        return self._cover(self._models.use(model))

    def _remember(self, row: int, model: str) -> None:
        """Note that a model has had an outcome on a node; that with the oldest outcome there makes room for it."""
        arms = self._arms[row]
        arms.pop(model, None)
        arms[model] = None
        if len(arms) > MAX_ARMS:
            oldest = next(iter(arms))
            del arms[oldest], self._models.find(oldest).summaries[row]
            self.forgotten[self._rows.names[row]] += 1

    def _discards(self, one: Outcome | Ended) -> bool:
        fault = one.find_fault()
        if fault is not None and self._count_discarded is not None:
            self._count_discarded(fault)
        return fault is not None

    def _cover(self, known: ModelLaws) -> ModelLaws:
        if known.registrations != self._rows.registrations:
            known.cover(len(self._rows))
            groups = np.array(self._rows.groups, dtype=np.int64)
            for row in np.flatnonzero(known.latency.group_of_row != groups).tolist():
                self._assign(known, row)
            known.registrations = self._rows.registrations
        return known

    def _assign(self, known: ModelLaws, row: int) -> None:
        group, prior = self._rows.groups[row], self._find_prior(self._rows.gpu_type(row))
        known.latency.set_prior(group, prior.latency, prior.doubt)
        known.energy.set_prior(group, prior.energy, prior.doubt)
        known.latency.assign(row, group)
        known.energy.assign(row, group)
        others = known.alike(row)[known.alike(row) != row]
        known.load_s[row] = known.load_s[others[0]] if len(others) else LOAD_S


def _check_laws(state: dict[str, Any], known: ModelLaws, row: int, learned_s: float) -> None:
    """Raise unless laws can be restored from a state where they are taken from it; what is known is not touched.

    Raises:
        ValueError: which law cannot, and why.
    """
    try:
        for name, law in (("latency", known.latency), ("energy", known.energy)):
            law.find_restored(row, state[name], learned_s)
        name = "lengths"
        LengthLaw().import_better(state["lengths"])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def judge_choice(outcome: Outcome, row: int) -> Feedback:
    """Return what a task came to for the policy that sent it to the node of `row`."""
    return Feedback(
        model=outcome.run.model,
        row=row,
        latency_s=outcome.latency_s,
        deadline_s=outcome.deadline_s,
        energy_j=_find_plausible_j(outcome),
        prompt_tokens=outcome.run.prompt_tokens,
        output_tokens=outcome.output_tokens,
        resource_slack=outcome.resource_slack,
    )


def _find_plausible_j(outcome: Outcome) -> float:
    """Return the energy of a task, as expected where it is not known, and within `MAX_ENERGY_RATIO` of that."""
    expected_j = outcome.predicted_energy_j
    if outcome.energy_j is None:
        return expected_j
    if expected_j <= 0.0:
        return outcome.energy_j
    return min(max(outcome.energy_j, expected_j / MAX_ENERGY_RATIO), expected_j * MAX_ENERGY_RATIO)
