"""FineInfer: He, Lu, Alonso, "Deferred Continuous Batching in Resource-Efficient Large Language Model Serving",
EuroMLSys 2024 (10.1145/3642970.3655835). Our re-implementation.

    theirs: with delay d_r of request r so far, its bound d_b, iteration time t_i now and t_f with additional work,
            defer the additional work while d_r + t_f - t_i >= d_b for any admitted r
    here:   the additional work is the next request; d_b is the time by which r was predicted early when it was
            admitted; d_r and t_f - t_i are what the batch of now and that with one more cost r over the rest of its
            answer, compared with the batch it was admitted to; defer while there is an r in time now and late then
            d_r       = s per token and batch step x tokens r has left x (batch now - batch at its admission)
            t_f - t_i = s per token and batch step x tokens r has left + s per prompt token x new prompt

FineInfer serves on one machine and does not place tasks, so all tasks go to the cloud tier, first come first served,
with continuous batching up to the node's slots; of several cloud nodes the least loaded that need not defer. No energy.
Simplified: there is no fine-tuning to co-run. The two times per token are fitted by recursive least squares to the
latencies predicted for the node at different batches, the stand-in for their profiled iteration times. Which request
has ended is not seen, only how many run: the oldest are taken to have ended, and of n running requests the k-th oldest
to have k / n of its tokens left. A request already predicted late at admission defers no other. A request is never
deferred once its own deadline is at risk, so nothing starves.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from perllm.policy.problem import Arms, Choice, FloatArray, TaskFeatures
from perllm_lab.baselines.choice import Baseline, build_choice, find_best, find_roomy, measure_load

SCALE: FloatArray = np.array([1.0, 1e-6, 1e-3, 1e-2, 1e-3])
"""Brings the regressors of a latency near 1."""


@dataclass(frozen=True, slots=True)
class FineInferParameters:
    """Settings of FineInfer.

    Attributes:
        risk: a request whose predicted latency times this exceeds its time left is admitted at once.
        ridge: weight of the zero prior of the fitted times.
    """

    risk: float = 2.0
    ridge: float = 1e-3


class FineInfer(Baseline):
    """Deferred continuous batching in the cloud."""

    name = "fineinfer"

    def __init__(self, rng: Generator, parameters: FineInferParameters | None = None) -> None:
        self._parameters = parameters or FineInferParameters()
        self._batches: dict[int, _Batch] = {}

    def choose(self, task: TaskFeatures, arms: Arms) -> Choice:
        """Admit the task to the least loaded cloud node with room, unless that would make an admitted request late."""
        eligible = find_roomy(arms) & arms.is_cloud
        load = measure_load(arms)
        first = find_best(-load, eligible, arms, arms.latency_s)
        if first is None:
            return build_choice(task, arms, None, scores=-load, eligible=eligible, reason="no cloud node has room")
        arm, reason = self._admit(task, arms, eligible, load), "no admitted request made late"
        if arm is None and task.time_left_s <= self._parameters.risk * float(arms.latency_s[first]):
            arm, reason = first, "its own deadline is at risk"
        if arm is None:
            return build_choice(task, arms, None, scores=-load, eligible=eligible, reason="deferred")
        self._batch(arms, arm).join(task, float(arms.latency_s[arm]), float(arms.compute_used[arm]))
        return build_choice(task, arms, arm, scores=-load, eligible=eligible, reason=reason)

    def _admit(self, task: TaskFeatures, arms: Arms, eligible: np.ndarray, load: FloatArray) -> int | None:
        positions = np.flatnonzero(eligible)
        for position in positions[np.lexsort((arms.rows[positions], arms.latency_s[positions], load[positions]))]:
            batch = self._batch(arms, int(position))
            batch.trim(int(arms.compute_used[position]) - 1)
            if not batch.must_defer(task):
                return int(position)
        return None

    def _batch(self, arms: Arms, arm: int) -> "_Batch":
        return self._batches.setdefault(int(arms.rows[arm]), _Batch(_Times(self._parameters.ridge)))


class _Times:
    """Recursive least squares of latency = c0 + c1 megabytes + c2 prompt + c3 answer + c4 answer x batch."""

    def __init__(self, ridge: float) -> None:
        self._terms: FloatArray = np.zeros(len(SCALE))
        self._covariance: FloatArray = np.eye(len(SCALE)) / ridge

    @property
    def prompt_s(self) -> float:
        """Seconds per token read."""
        return max(float(self._terms[2] * SCALE[2]), 0.0)

    @property
    def step_s(self) -> float:
        """Seconds per token written that one more task in the batch adds."""
        return max(float(self._terms[4] * SCALE[4]), 0.0)

    def fit(self, task: TaskFeatures, batch: float, latency_s: float) -> None:
        """Fit the times to a predicted latency."""
        answer = task.output_tokens
        row = SCALE * np.array([1.0, task.input_bytes, task.prompt_tokens, answer, answer * batch])
        gain = self._covariance @ row
        gain /= 1.0 + float(row @ gain)
        self._terms = self._terms + gain * (latency_s - float(row @ self._terms))
        self._covariance = self._covariance - np.outer(gain, row @ self._covariance)


@dataclass(slots=True)
class _Batch:
    """The requests running on a node, in order of admission: how early each was predicted, its answer, its batch."""

    times: _Times
    margin_s: FloatArray = field(default_factory=lambda: np.zeros(0))
    output_tokens: FloatArray = field(default_factory=lambda: np.zeros(0))
    batch: FloatArray = field(default_factory=lambda: np.zeros(0))

    def trim(self, running: int) -> None:
        """Keep the newest `running` requests."""
        surplus = len(self.margin_s) - max(running, 0)
        if surplus > 0:
            self.margin_s, self.output_tokens = self.margin_s[surplus:], self.output_tokens[surplus:]
            self.batch = self.batch[surplus:]

    def must_defer(self, task: TaskFeatures) -> bool:
        """Return whether admitting `task` makes a request late that is not late yet."""
        running = len(self.margin_s)
        prompt_s, step_s = self.times.prompt_s, self.times.step_s
        left = self.output_tokens * np.arange(1, running + 1) / max(running, 1)
        early_s = self.margin_s - step_s * left * (running - self.batch)
        cost_s = step_s * left + prompt_s * task.prompt_tokens
        return bool(((early_s >= 0) & (early_s < cost_s)).any())

    def join(self, task: TaskFeatures, latency_s: float, batch: float) -> None:
        """Admit `task` as the last of a batch of this size."""
        self.times.fit(task, batch, latency_s)
        self.margin_s = np.append(self.margin_s, task.time_left_s - latency_s)
        self.output_tokens = np.append(self.output_tokens, task.output_tokens)
        self.batch = np.append(self.batch, batch)
