"""The replay memory of AGOD: decisions in order of time, each with the features of the arms and, later, its reward."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from perllm_lab.baselines.network import Tensor


@dataclass(frozen=True, slots=True)
class Transitions:
    """Decisions and the ones that followed them; b decisions of up to k arms with f features, the chosen arm first.

    Attributes:
        features: shape (b, k, f).
        present: whether there is such an arm, shape (b, k).
        rewards: shape (b,).
        next_features: those of the following decision.
        next_present: those of the following decision.
    """

    features: Tensor
    present: NDArray[np.bool_]
    rewards: Tensor
    next_features: Tensor
    next_present: NDArray[np.bool_]


class Memory:
    """The last `capacity` decisions, numbered from 0; rewards come late and in any order, some never."""

    def __init__(self, capacity: int, arms: int, features: int) -> None:
        self._capacity = capacity
        self._arms = arms
        self._features: Tensor = np.zeros((capacity, arms, features), dtype=np.float32)
        self._present = np.zeros((capacity, arms), dtype=np.bool_)
        self._rewards: Tensor = np.zeros(capacity, dtype=np.float32)
        self._rewarded = np.zeros(capacity, dtype=np.int64)
        self._decisions = 0
        self._rewards_known = 0

    def __len__(self) -> int:
        return min(self._rewards_known, self._capacity)

    def put(self, features: Tensor) -> int:
        """Note a decision, shape (arms seen, features) with the chosen arm first, and return its number."""
        number = self._decisions
        at, count = number % self._capacity, min(len(features), self._arms)
        self._features[at, :count] = features[:count]
        self._present[at, :count] = True
        self._present[at, count:] = False
        self._decisions += 1
        return number

    def reward(self, number: int, reward: float) -> None:
        """Note the reward of a decision; nothing happens when it has been forgotten."""
        if number < self._decisions - self._capacity:
            return
        self._rewards[number % self._capacity] = reward
        self._rewarded[self._rewards_known % self._capacity] = number
        self._rewards_known += 1

    def sample(self, count: int, rng: Generator) -> Transitions | None:
        """Draw decisions whose reward is known and that another one followed; None when there are none."""
        if not len(self):
            return None
        numbers = self._rewarded[rng.integers(len(self), size=count)]
        numbers = numbers[(numbers > self._decisions - self._capacity) & (numbers + 1 < self._decisions)]
        if not len(numbers):
            return None
        at, following = numbers % self._capacity, (numbers + 1) % self._capacity
        here, there = self._width(at), self._width(following)
        return Transitions(
            self._features[at, :here],
            self._present[at, :here],
            self._rewards[at],
            self._features[following, :there],
            self._present[following, :there],
        )

    def _width(self, at: NDArray[np.int64]) -> int:
        """Return the most arms that one of these decisions has; what is beyond would only cost time."""
        return int(self._present[at].sum(axis=1).max())
