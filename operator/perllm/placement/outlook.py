"""What is expected of a task on each node, and the arms that a policy chooses among."""

from dataclasses import dataclass, fields

import numpy as np

from perllm.placement.forecast import LEAST_S, ArmForecast, RunEnergy, RunTimes
from perllm.policy.problem import Arms, FloatArray, IntArray

_QUANTILES = np.array([-1.645, -1.036, -0.674, -0.385, -0.126, 0.126, 0.385, 0.674, 1.036, 1.645])
"""Middles of ten equally likely ranges of the standard normal distribution."""

_TIMES = tuple(one.name for one in fields(RunTimes))
_ENERGIES = tuple(one.name for one in fields(RunEnergy))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is expected on each of n nodes; arrays have shape (n,) unless stated otherwise.

    Attributes:
        times: how long the task takes.
        queue_s: the part of it in which it waits for room.
        energy: how much energy it takes.
        demand_bps: uplink that brings the input there in time.
        tasks: tasks of its model there, this one included.
        gpus: GPUs of the node.
        pace: share of the time of a GPU that its model is expected to have there.
        types: numbers of the GPU types.
        time_spread: standard deviation of ln(actual / expected seconds).
        low: 5 % quantile of it.
        high: 95 % quantile of it.
        lengths: equally likely lengths of the answer, shape (k,).
        arms: what the policy chooses among.
    """

    times: RunTimes[FloatArray]
    queue_s: FloatArray
    energy: RunEnergy[FloatArray]
    demand_bps: FloatArray
    tasks: FloatArray
    gpus: FloatArray
    pace: FloatArray
    types: IntArray
    time_spread: FloatArray
    low: FloatArray
    high: FloatArray
    lengths: FloatArray
    arms: Arms

    def at(self, arm: int) -> ArmForecast:
        """Return what is expected on one node."""
        low_s, high_s = self._latency_range_s(arm)
        return ArmForecast(
            times=RunTimes(**{name: float(getattr(self.times, name)[arm]) for name in _TIMES}),
            energy=RunEnergy(**{name: float(getattr(self.energy, name)[arm]) for name in _ENERGIES}),
            latency_low_s=low_s,
            latency_high_s=high_s,
            hit_chance=float(self.arms.hit_chance[arm]),
            harm=float(self.arms.harm[arm]),
            demand_bps=float(self.demand_bps[arm]),
            occupancy=float(self.tasks[arm]),
            gpus=float(self.gpus[arm]),
            time_spread=float(self.time_spread[arm]),
            pace=float(self.pace[arm]),
        )

    def _latency_range_s(self, arm: int) -> tuple[float, float]:
        """Return the 5 % and 95 % quantiles of the latency on a node, the length of the answer being unknown."""
        times_s = self.times.fixed_s[arm] + self.times.token_s[arm] * self.lengths
        logs = np.log(np.maximum(times_s, LEAST_S))
        grid = np.sort((logs[:, None] + float(self.time_spread[arm]) * _QUANTILES).ravel())
        last = len(grid) - 1
        return float(np.exp(grid[round(0.05 * last)])), float(np.exp(grid[round(0.95 * last)]))
