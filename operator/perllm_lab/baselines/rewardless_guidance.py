"""RewardlessGuidance: He, Fang, Yu, Leung, "LLMs Inference Offloading and Resource Allocation in Cloud-Edge Computing:
An Active Inference Approach", IEEE TMC 2024 (10.1109/TMC.2024.3415661). Our re-implementation.

    rg    = tc (1 / L + P)                   their guidance (11); tc completed in time, L latency, P prediction quality
    score = rg + kappa std_k(1 / L_k)        guidance plus expected information gain of an ensemble world model
    choice = argmax of score over the servers with compute and bandwidth left

Kept: a world model that is an ensemble, information gain from its disagreement, the guidance above, hard resource
constraints, no energy.
Simplified: 5 bootstrap ridge regressions of latency for each class of server (tier and slots) stand for the neural
world model, with weights drawn from Poisson(1) for each outcome (online bootstrap); their hundreds of training episodes
are replaced by a prior centred on the latency the operator itself predicts, spread a little so that the members differ;
the search over candidate policies collapses to one argmax, since a task takes one slot and the shares of compute and
bandwidth are not ours to set; tc is the share of members that predict the task in time. When no server is predicted in
time the fastest of them is taken. Every node of a tier serves the same model, so P is one number a tier.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from perllm.policy.problem import Arms, Choice, Feedback, FloatArray, IntArray, TaskFeatures
from perllm_lab.baselines.choice import Baseline, build_choice, find_best, find_roomy
from perllm_lab.baselines.pending import Pending

FEATURES = 6
SHORTEST_S = 0.1


@dataclass(frozen=True, slots=True)
class RewardlessParameters:
    """Settings of RewardlessGuidance.

    Attributes:
        members: size of the ensemble.
        curiosity: kappa, weight of the disagreement.
        cloud_quality: P of the cloud's model.
        edge_quality: P of the edge's model.
        ridge: weight of the prior, in outcomes.
        prior_spread: standard deviation of the members' prior coefficients.
    """

    members: int = 5
    curiosity: float = 0.5
    cloud_quality: float = 1.0
    edge_quality: float = 1.0
    ridge: float = 1.0
    prior_spread: float = 0.05


@dataclass(frozen=True, slots=True)
class _Observed:
    """What the model saw at a decision."""

    server_class: int
    features: FloatArray
    waited_s: float
    quality: float


class RewardlessGuidance(Baseline):
    """Active inference with a bootstrap ensemble."""

    name = "rewardless-guidance"

    def __init__(self, rng: Generator, parameters: RewardlessParameters | None = None) -> None:
        self._rng = rng
        self._parameters = parameters or RewardlessParameters()
        self._pending: Pending[_Observed] = Pending()
        self._classes: dict[tuple[bool, float], int] = {}
        self._class_of_row: IntArray = np.full(0, -1, dtype=np.int64)
        shape = (0, self._parameters.members, FEATURES)
        self._precision: NDArray[np.float64] = np.zeros((*shape, FEATURES))
        self._moment: NDArray[np.float64] = np.zeros(shape)
        self._weights: NDArray[np.float64] = np.zeros(shape)

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Choose the server of the highest guidance plus information gain."""
        eligible = find_roomy(arms) & (arms.bandwidth_used_bps <= arms.bandwidth_capacity_bps)
        classes = self._find_classes(arms)
        features = _describe(task, arms)
        latency_s = np.maximum(np.einsum("nkf,nf->kn", self._weights[classes], features), SHORTEST_S)
        speed = 1.0 / latency_s
        completed = (latency_s <= task.time_left_s).mean(axis=0)
        quality = np.where(arms.is_cloud, self._parameters.cloud_quality, self._parameters.edge_quality)
        guidance = completed * (speed.mean(axis=0) + quality)
        mean_s = latency_s.mean(axis=0)
        if not (eligible & (completed > 0)).any():
            scores = -mean_s
        else:
            scores = guidance + self._parameters.curiosity * speed.std(axis=0)
        arm = find_best(scores, eligible, arms, mean_s)
        if arm is None:
            return build_choice(task, arms, None, scores=scores, eligible=eligible, reason="no server has room")
        waited_s = task.deadline_s - task.time_left_s
        observed = _Observed(int(classes[arm]), features[arm].copy(), waited_s, float(quality[arm]))
        self._pending.put(task, int(arms.rows[arm]), observed)
        explored = bool(guidance[arm] < guidance[eligible].max())
        reason = f"expects {mean_s[arm]:.2f} s, {completed[arm]:.0%} of its models in time"
        return build_choice(task, arms, arm, scores=scores, eligible=eligible, reason=reason, explored=explored)

    def learn(self, feedback: Feedback) -> float:
        """Fit the world model to an outcome and return its guidance."""
        observed = self._pending.take(feedback)
        if observed is None:
            return 0.0
        self._fit(observed, feedback.latency_s - observed.waited_s)
        return float(feedback.is_in_time) * (1.0 / max(feedback.latency_s, SHORTEST_S) + observed.quality)

    def learn_miss(self, model: str, row: int, prompt_tokens: float) -> None:
        """Forget a decision whose task was ended: how long it would have taken is not known."""
        self._pending.take_oldest(model, row)

    def _fit(self, observed: _Observed, latency_s: float) -> None:
        features, at = observed.features, observed.server_class
        counts = self._rng.poisson(1.0, self._parameters.members).astype(np.float64)
        self._precision[at] += counts[:, None, None] * np.outer(features, features)
        self._moment[at] += (counts * latency_s)[:, None] * features
        self._weights[at] = np.linalg.solve(self._precision[at], self._moment[at][:, :, None])[:, :, 0]

    def _find_classes(self, arms: Arms) -> IntArray:
        missing = int(arms.rows.max(initial=-1)) + 1 - len(self._class_of_row)
        if missing > 0:
            self._class_of_row = np.concatenate([self._class_of_row, np.full(missing, -1, dtype=np.int64)])
        classes = self._class_of_row[arms.rows]
        unknown = np.flatnonzero((classes < 0) & (arms.compute_capacity > 0))
        for position in unknown[np.argsort(arms.rows[unknown])]:
            key = (bool(arms.is_cloud[position]), float(arms.compute_capacity[position]))
            self._class_of_row[arms.rows[position]] = self._class(key)
        if len(unknown):
            classes = self._class_of_row[arms.rows]
        if not self._classes:
            self._class((False, 0.0))
        return np.maximum(classes, 0)

    def _class(self, key: tuple[bool, float]) -> int:
        known = self._classes.get(key)
        if known is not None:
            return known
        self._classes[key] = len(self._classes)
        members, ridge = self._parameters.members, self._parameters.ridge
        prior = self._rng.normal(0.0, self._parameters.prior_spread, (1, members, FEATURES))
        prior[:, :, 0] += 1.0
        precision = np.broadcast_to(ridge * np.eye(FEATURES), (1, members, FEATURES, FEATURES))
        self._precision = np.concatenate([self._precision, precision])
        self._moment = np.concatenate([self._moment, ridge * prior])
        self._weights = np.concatenate([self._weights, prior])
        return self._classes[key]


def _describe(task: TaskFeatures, arms: Arms) -> FloatArray:
    """Return features of every arm, shape (n, 6): predicted latency, 1, prompt, answer, payload, load times answer."""
    features = np.empty((len(arms.rows), FEATURES))
    load = np.minimum(arms.compute_used / np.maximum(arms.compute_capacity, 1.0), 2.0)
    output = task.output_tokens / 100.0
    features[:, 0] = arms.latency_s
    features[:, 1] = 1.0
    features[:, 2] = task.prompt_tokens / 1000.0
    features[:, 3] = output
    features[:, 4] = task.input_bytes / 1e6
    features[:, 5] = load * output
    return features
