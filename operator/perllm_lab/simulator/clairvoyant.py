"""The clairvoyant knows the true laws of the hardware and the true answer length of every task that has arrived.

It decides by the rule of cs-ucb, deadlines first, then energy. It does not know future arrivals: they delay the tasks
that run, so although a length is certain the seconds are not, and a clairvoyant that takes them for certain packs its
nodes until the next burst makes all of them late. How much doubt is right depends on what will arrive. That is known
afterwards: a run is made with little doubt and with much, and the better one counts (`policies.HINDSIGHT`). So it is a
reference that no policy should beat, but not a bound: nothing proves that no order of the tasks is better.
"""

import numpy as np

from perllm.learning.learner import Learner, judge_choice
from perllm.learning.lengths import Length
from perllm.learning.model_laws import UsualTask
from perllm.learning.outcome import Ended, Outcome
from perllm.policy.problem import Feedback, FloatArray, Policy
from perllm_lab.hardware.gpu import GpuType
from perllm_lab.hardware.scenario import NodeSpec

LEAST_S = 1e-6


class TrueLearner(Learner):
    """A learner with nothing to learn: laws come from the hardware, and lengths from exact hints.

    Args:
        policy: whose statistics are kept.
        doubt: standard deviation of the logarithm of what is left of a running task, where its harm is concerned.
    """

    def __init__(self, policy: Policy, doubt: float) -> None:
        super().__init__(policy)
        self._doubt = doubt
        self._nodes: dict[str, NodeSpec] = {}
        self._speeds: dict[str, float] = {}

    def seed_node(self, node: NodeSpec) -> None:
        """Set the true laws of a node."""
        row = self.register(node.name, node.gpu.product)
        laws = self._know(node.model, row)
        self._nodes[node.name] = node
        self._speeds.pop(node.name, None)
        self._set_laws(node.name)
        laws.load_s[row] = node.gpu.model_load_s
        laws.latency.scale[row] = 0.1
        laws.latency.low[row], laws.latency.high[row] = -0.165, 0.165

    def observe_speed(self, name: str, speed: float) -> None:
        """Set the present speed of a node, as a share of nominal."""
        if self._speeds.get(name, 1.0) == speed:
            return
        self._speeds[name] = speed
        self._set_laws(name)

    def expect_length(self, model: str, prompt_tokens: float, hint_tokens: float | None, service: str = "") -> Length:
        """Return the true length, which is given as the hint."""
        tokens = float(hint_tokens or 1.0)
        points: FloatArray = np.array([tokens])
        return Length(float(np.log(tokens)), self._doubt, points, tokens)

    def learn(self, outcome: Outcome, own: Feedback | None = None) -> float | None:
        """Record that the model is loaded, and learn what the true laws do not contain: how other tasks come and go."""
        row = self._rows[outcome.run.node]
        known = self._know(outcome.run.model, row)
        if row not in known.unloaded:
            # The node may have been lost and restarted since.
            known.note_loaded(row)
        self._set_laws(outcome.run.node)
        if outcome.run_error is not None and outcome.run.cold <= 0.0:
            known.latency.account(row, outcome.run_error)
        return self._policy.learn(own or judge_choice(outcome, row))

    def learn_ended(self, ended: Ended) -> bool:
        """Account for a run that was ended: it took at least as long as predicted."""
        row = self._rows[ended.run.node]
        foreseen_s = ended.foreseen_fixed_s + (ended.run.hint_tokens or 1.0) * ended.foreseen_token_s
        error = float(np.log(max(ended.run.run_s, LEAST_S) / max(foreseen_s, LEAST_S)))
        if ended.run.cold <= 0.0:
            self._know(ended.run.model, row).latency.account(row, max(error, 0.0))
        return True

    def _set_laws(self, name: str) -> None:
        """Set the laws of a node at its present speed, for the mean task of lately."""
        node, row, speed = self._nodes[name], self._rows[name], self._speeds.get(name, 1.0)
        laws = self._know(node.model, row)
        slowed = np.array([1.0, 1.0 / speed, 1.0 / speed, 1.0 / speed, 1.0])
        law = _latency_law(node.gpu, node.link.rtt_s, laws.usual) * slowed
        laws.latency.coefficients[row] = law
        # Slower, a GPU draws the same power for longer.
        laws.energy.coefficients[row] = _energy_law(node.gpu) / speed
        # Known, not learned: without outcomes it would be doubted as much as published figures, or a type without any.
        laws.latency.set_prior(int(laws.latency.group_of_row[row]), law.tolist(), doubt=0.0)


def _latency_law(gpu: GpuType, rtt_s: float, usual: UsualTask) -> FloatArray:
    per_task_s = gpu.task_s(usual.prompt_tokens + usual.output_tokens / 2)
    read_s = gpu.prefill_s(1000.0)
    per_token_s = gpu.iteration_base_s + per_task_s
    return np.array([gpu.pod_start_s + rtt_s, read_s, 100 * per_token_s, 100 * per_task_s, rtt_s])


def _energy_law(gpu: GpuType) -> FloatArray:
    prompt_j = gpu.prefill_power_w * gpu.prefill_per_token_s
    return np.array([1000 * prompt_j, 100 * gpu.token_energy_j, 100 * gpu.iteration_energy_j])
