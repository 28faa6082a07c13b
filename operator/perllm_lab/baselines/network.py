"""A small neural network in numpy: inputs -> hidden (ReLU) -> hidden (ReLU) -> one number, trained by Adam."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Tensor = NDArray[np.float32]

DECAY_MEAN, DECAY_SQUARE, SMALL = 0.9, 0.999, 1e-8


class NeuralNetwork:
    """Maps rows of inputs, shape (n, inputs), to n numbers."""

    def __init__(self, inputs: int, hidden: int, rng: Generator, *, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self.weights: list[Tensor] = [
            _draw(rng, inputs, hidden),
            np.zeros(hidden, dtype=np.float32),
            _draw(rng, hidden, hidden),
            np.zeros(hidden, dtype=np.float32),
            _draw(rng, hidden, 1) * np.float32(0.1),
            np.zeros(1, dtype=np.float32),
        ]
        self._means = [np.zeros_like(weight) for weight in self.weights]
        self._squares = [np.zeros_like(weight) for weight in self.weights]
        self._steps = 0

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the outputs, shape (n,)."""
        w1, b1, w2, b2, w3, b3 = self.weights
        first = np.maximum(inputs @ w1 + b1, 0.0)
        second = np.maximum(first @ w2 + b2, 0.0)
        output: Tensor = (second @ w3)[:, 0] + b3[0]
        return output

    def descend(self, inputs: Tensor, slopes: Tensor) -> None:
        """Take one step down a loss whose derivative by output i is `slopes[i]`."""
        w1, b1, w2, b2, w3, _ = self.weights
        first = np.maximum(inputs @ w1 + b1, 0.0)
        second = np.maximum(first @ w2 + b2, 0.0)
        by_output = slopes[:, None]
        by_second = (by_output @ w3.T) * (second > 0)
        by_first = (by_second @ w2.T) * (first > 0)
        self._step(
            [
                inputs.T @ by_first,
                by_first.sum(axis=0),
                first.T @ by_second,
                by_second.sum(axis=0),
                second.T @ by_output,
                by_output.sum(axis=0),
            ]
        )

    def follow(self, other: "NeuralNetwork", rate: float) -> None:
        """Move the weights by `rate` towards those of `other`."""
        for mine, theirs in zip(self.weights, other.weights, strict=True):
            mine += np.float32(rate) * (theirs - mine)

    def _step(self, gradients: Sequence[Tensor]) -> None:
        self._steps += 1
        rate = self._learning_rate * np.sqrt(1 - DECAY_SQUARE**self._steps) / (1 - DECAY_MEAN**self._steps)
        for weight, mean, square, gradient in zip(self.weights, self._means, self._squares, gradients, strict=True):
            mean += np.float32(1 - DECAY_MEAN) * (gradient - mean)
            square += np.float32(1 - DECAY_SQUARE) * (gradient * gradient - square)
            weight -= np.float32(rate) * mean / (np.sqrt(square) + np.float32(SMALL))


def _draw(rng: Generator, rows: int, columns: int) -> Tensor:
    return rng.normal(0.0, np.sqrt(2.0 / rows), (rows, columns)).astype(np.float32)
