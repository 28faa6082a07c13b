"""AGOD: Du et al., "Diffusion-based Reinforcement Learning for Edge-enabled AI-Generated Content Services", IEEE TMC
2024 (arXiv 2303.13052, code Lizonghang/AGOD): which of many providers serves a task. Our re-implementation.

    state   prompt, expected answer, deadline; of every node its load and the use of its uplink
    reward  1 in time, -2 late: utility less twice the violation; no energy, no hard constraint
    actor   pi(a) = softmax of a network's outputs, maximises E_pi[min(Q1, Q2) - alpha ln pi]
    critics Q1, Q2 fitted to r + gamma V(s'),  V = E_pi[min(Q1', Q2') - alpha ln pi],  s' the next task's state,
            Q1', Q2' following Q1, Q2 slowly

Kept: discrete soft actor-critic, twin critics, entropy weight 0.05, discount 0.95, replay, acting by sampling.
Simplified: the 5-step diffusion actor is replaced by a softmax actor; one-step instead of three-step returns; networks
of 2 x 64 instead of 2 x 256, larger learning rates and fewer updates, since a run has 20,000 tasks and not a thousand
epochs.
In its favour: one network scores every node from features of that node (the task's, its own, and two means over the
fleet), so that it learns from all nodes at once, does not depend on their order or number, and applies what it learned
to a new one; the features include the predicted latency relative to the time left; weights can be pretrained.
Rewards are scaled, which only changes their weight against entropy.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from perllm.policy.problem import Arms, BoolArray, Choice, Feedback, FloatArray, TaskFeatures
from perllm_lab.baselines.agod_memory import Memory, Transitions
from perllm_lab.baselines.choice import Baseline, build_choice, find_open, measure_load
from perllm_lab.baselines.network import NeuralNetwork, Tensor
from perllm_lab.baselines.pending import Pending

FEATURES = 12


@dataclass(frozen=True, slots=True)
class AgodParameters:
    """Settings of AGOD; the authors' values where they give any.

    Attributes:
        entropy: alpha.
        discount: gamma.
        violation: cost of a late task, in tasks in time.
        reward_scale: what a reward is multiplied by; sets the weight of entropy relative to it.
        hidden: width of the networks.
        actor_rate: learning rate of the actor.
        critic_rate: learning rate of the critics.
        follow_rate: by how much the target critics follow at each update.
        batch: decisions per update.
        update_every: outcomes per update.
        memory: decisions remembered.
        arms: nodes remembered per decision; of a larger fleet, the most likely ones and as many others.
    """

    entropy: float = 0.05
    discount: float = 0.95
    violation: float = 2.0
    reward_scale: float = 0.3
    hidden: int = 64
    actor_rate: float = 1e-3
    critic_rate: float = 3e-3
    follow_rate: float = 0.02
    batch: int = 128
    update_every: int = 32
    memory: int = 4096
    arms: int = 24


class Agod(Baseline):
    """Soft actor-critic over nodes."""

    name = "agod"

    def __init__(self, rng: Generator, parameters: AgodParameters | None = None) -> None:
        chosen = parameters or AgodParameters()
        self._rng = rng
        self._parameters = chosen
        self._actor = NeuralNetwork(FEATURES, chosen.hidden, rng, learning_rate=chosen.actor_rate)
        self._critics = [
            NeuralNetwork(FEATURES, chosen.hidden, rng, learning_rate=chosen.critic_rate) for _ in range(2)
        ]
        self._targets = [
            NeuralNetwork(FEATURES, chosen.hidden, rng, learning_rate=chosen.critic_rate) for _ in range(2)
        ]
        self._aim(1.0)
        self._memory = Memory(chosen.memory, chosen.arms, FEATURES)
        self._pending: Pending[int] = Pending()
        self._outcomes = 0

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Draw a node from the actor's distribution over the open nodes."""
        eligible = find_open(arms)
        if not eligible.any():
            scores = np.zeros(len(arms.rows))
            return build_choice(task, arms, None, scores=scores, eligible=eligible, reason="no open node")
        features = _describe(task, arms, eligible)
        outputs = self._actor(features)
        likely = _softmax(np.where(eligible, outputs, -np.inf)).astype(np.float64)
        total = likely.cumsum()
        arm = int(total.searchsorted(self._rng.random() * total[-1], side="right"))
        number = self._memory.put(features[self._select(likely, eligible, arm)])
        self._pending.put(task, int(arms.rows[arm]), number)
        reason = f"drawn with probability {likely[arm]:.2f}"
        explored = bool(likely[arm] < likely.max())
        return build_choice(
            task, arms, arm, scores=outputs.astype(np.float64), eligible=eligible, reason=reason, explored=explored
        )

    def learn(self, feedback: Feedback) -> float:
        """Remember the reward of an outcome and, every few outcomes, improve actor and critics."""
        return self._remember(self._pending.take(feedback), in_time=feedback.is_in_time)

    def learn_miss(self, model: str, row: int, prompt_tokens: float) -> None:
        """Remember that a task was ended at its deadline: the oldest one placed there."""
        self._remember(self._pending.take_oldest(model, row), in_time=False)

    def export_weights(self) -> dict[str, Tensor]:
        """Return all weights by name."""
        networks = {"actor": self._actor, "critic0": self._critics[0], "critic1": self._critics[1]}
        return {
            f"{name}.{position}": weight.copy()
            for name, network in networks.items()
            for position, weight in enumerate(network.weights)
        }

    def import_weights(self, weights: Mapping[str, NDArray[np.floating]]) -> None:
        """Take over weights that `export_weights` returned.

        Raises:
            ValueError: a weight is missing or has another shape; nothing is changed then.
        """
        mine = self.export_weights()
        wrong = [name for name, weight in mine.items() if name not in weights or weights[name].shape != weight.shape]
        if wrong:
            raise ValueError(f"not the weights of {self.name} with these settings: {', '.join(wrong)}")
        for name, network in (("actor", self._actor), ("critic0", self._critics[0]), ("critic1", self._critics[1])):
            for position, weight in enumerate(network.weights):
                weight[...] = weights[f"{name}.{position}"]
        self._aim(1.0)

    def _remember(self, number: int | None, *, in_time: bool) -> float:
        reward = 1.0 if in_time else -self._parameters.violation
        if number is None:
            return reward
        self._memory.reward(number, reward * self._parameters.reward_scale)
        self._outcomes += 1
        if self._outcomes % self._parameters.update_every == 0 and len(self._memory) >= self._parameters.batch:
            sample = self._memory.sample(self._parameters.batch, self._rng)
            if sample is not None:
                self._improve(sample)
        return reward

    def _improve(self, sample: Transitions) -> None:
        next_likely = _likely(self._actor, sample.next_features, sample.next_present)
        next_value = (next_likely * self._worth(self._targets, sample.next_features, next_likely)).sum(axis=1)
        aims = sample.rewards + np.float32(self._parameters.discount) * next_value
        count = np.float32(len(aims))
        chosen = sample.features[:, 0]
        for critic in self._critics:
            critic.descend(chosen, (critic(chosen) - aims) / count)
        likely = _likely(self._actor, sample.features, sample.present)
        worth = self._worth(self._critics, sample.features, likely)
        slopes = -likely * (worth - (likely * worth).sum(axis=1, keepdims=True)) / count
        self._actor.descend(sample.features.reshape(-1, FEATURES), slopes.reshape(-1))
        self._aim(self._parameters.follow_rate)

    def _worth(self, critics: list[NeuralNetwork], features: Tensor, likely: Tensor) -> Tensor:
        flat = features.reshape(-1, FEATURES)
        value = np.minimum(critics[0](flat), critics[1](flat)).reshape(likely.shape)
        surprise = np.log(np.maximum(likely, np.float32(1e-12)))
        worth: Tensor = value - np.float32(self._parameters.entropy) * surprise
        return worth

    def _aim(self, rate: float) -> None:
        for target, critic in zip(self._targets, self._critics, strict=True):
            target.follow(critic, rate)

    def _select(self, likely: FloatArray, eligible: BoolArray, arm: int) -> NDArray[np.intp]:
        """Return the positions of the nodes to remember, the chosen one first."""
        others = np.flatnonzero(eligible)
        others = others[others != arm]
        room = self._parameters.arms - 1
        if len(others) > room:
            best = others[np.argpartition(likely[others], -(room // 2))[-(room // 2) :]]
            rest = np.setdiff1d(others, best, assume_unique=True)
            others = np.concatenate([best, self._rng.choice(rest, room - len(best), replace=False)])
        return np.concatenate([[arm], others])


def _likely(actor: NeuralNetwork, features: Tensor, present: BoolArray) -> Tensor:
    outputs = actor(features.reshape(-1, FEATURES)).reshape(present.shape)
    return _softmax(np.where(present, outputs, np.float32(-np.inf)))


def _softmax(outputs: Tensor) -> Tensor:
    powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    likely: Tensor = powers / powers.sum(axis=-1, keepdims=True)
    return likely


def _describe(task: TaskFeatures, arms: Arms, eligible: BoolArray) -> Tensor:
    """Return features of every node, shape (n, 12), each about within -2 and 2."""
    features = np.empty((len(arms.rows), FEATURES), dtype=np.float32)
    left_s = max(task.time_left_s, 1e-3)
    load = np.minimum(measure_load(arms), 3.0)
    features[:, 0] = np.log1p(task.prompt_tokens) / 4.0 - 1.5
    features[:, 1] = np.log1p(task.output_tokens) / 3.0 - 1.5
    features[:, 2] = np.log(left_s) / 2.0 - 1.0
    features[:, 3] = load
    features[:, 4] = arms.compute_used > arms.compute_capacity
    features[:, 5] = np.minimum(arms.bandwidth_used_bps / np.maximum(arms.bandwidth_capacity_bps, 1.0), 2.0)
    features[:, 6] = np.clip(np.log(np.maximum(arms.latency_s, 1e-3) / left_s), -2.0, 2.0)
    features[:, 7] = arms.is_cloud
    features[:, 8] = np.log(np.maximum(arms.compute_capacity, 1.0)) / 2.5 - 1.0
    features[:, 9] = np.log10(np.maximum(arms.bandwidth_capacity_bps, 1.0)) - 8.0
    features[:, 10] = load[eligible].mean()
    features[:, 11] = np.count_nonzero(eligible & (arms.latency_s <= left_s)) / len(arms.rows)
    return features
