"""How long an answer will be: unknown before its end, so a distribution, learned per model.

Notation
    L       tokens of an answer;  p  tokens of its prompt;  h  the task's own hint, if it gives one
    x       [1, ln(p / 1000)] without a hint, [1, ln(p / 1000), ln(h / 100)] with one: two separate laws
    ln L    = x'w + u + s z
    w       Bayesian linear regression in logarithms; the coefficient of ln h is how far hints have proven good:
            1 for exact ones, near 0 for noise
    u       offset of the task's service, and of its namespace (services.py)
    s       spread of what is left;  z  has no given shape, its distribution is counted in bins of width 0.1

A task that was ended is counted by the lengths that explain it (censoring.py). Leaving it out would make answers look
short. Old observations fade: the latest half of all counts three times as much as the half before, so early
errors of a law fade soon; the memory spans some thousands of answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perllm.api.base import MAX_TOKENS
from perllm.learning.services import ServiceOffsets, restore_offsets
from perllm.learning.type_law import is_better_known, is_gram
from perllm.policy.problem import FloatArray

BINS_PER_UNIT = 10
REACH = 5.0
"""z is counted from -5 to 5."""

MEMORY = 0.9998
"""Weight of an observation after the next one, once there are thousands."""

FADE = 0.5
"""Until then as much is forgotten as makes the weight of an observation grow linearly with its number."""

PRIOR_COUNT = 20.0
"""Answers that outweigh the prior shape, a normal one."""

MIN_SPREAD = 0.02
TYPICAL_TOKENS = 130.0
"""Median answer of the Azure LLM inference trace 2023 (conversation): 129 tokens."""

MAX_LOG_TOKENS = float(np.log(MAX_TOKENS))
"""No answer is longer, and no logarithm of one further from what was expected."""

MAX_COEFFICIENT = 1e9

RIDGE = 1e-6
"""Share of the prior that never fades: where all tasks of a model are alike nothing else would hold the law."""

_EDGES: FloatArray = np.linspace(-REACH, REACH, round(2 * REACH * BINS_PER_UNIT) + 1)
_MIDDLES: FloatArray = (_EDGES[:-1] + _EDGES[1:]) / 2


@dataclass(frozen=True, slots=True)
class Length:
    """The distribution of one task's answer: ln L = centre + spread z.

    Attributes:
        centre: as above.
        spread: as above.
        points: equally likely lengths, shape (k,), ascending: the middles of k quantile ranges.
        mean: expected tokens.
    """

    centre: float
    spread: float
    points: FloatArray
    mean: float

    def repeated(self, count: int) -> "Length":
        """Return the sum of that many independent answers of this length: mean and variance are exact.

        Its shape is that of one answer, drawn together around the mean.
        """
        if count == 1:
            return self
        points = count * self.mean + np.sqrt(count) * (self.points - self.mean)
        spread = max(self.spread / float(np.sqrt(count)), MIN_SPREAD)
        return Length(float(np.log(np.median(points))), spread, points, count * self.mean)


class LengthLaw:
    """Lengths of one model's answers.

    Args:
        first_kind: number of the shape without a hint; the next one is that with a hint.
        points: how many equally likely lengths stand for a distribution.

    Attributes:
        shapes: distribution functions of z without and with a hint, shape (2, bins + 1).
    """

    def __init__(self, first_kind: int = 0, points: int = 12) -> None:
        self.first_kind = first_kind
        self._laws = (_Law([np.log(TYPICAL_TOKENS), 0.0], 0.9), _Law([np.log(100.0), 0.0, 1.0], 0.5))
        self._shares: FloatArray = (np.arange(points) + 0.5) / points
        self.shapes: FloatArray = np.stack([law.cdf for law in self._laws])
        # The latest one: a task is asked about as it arrives, is ranked and is placed.
        self._predicted: dict[tuple[float, float | None, str], Length] = {}

    def predict(self, prompt_tokens: float, hint_tokens: float | None, service: str = "") -> Length:
        """Return what is known of an answer before it is begun."""
        asked = prompt_tokens, hint_tokens, service
        if asked not in self._predicted:
            self._predicted = {asked: self._predict(*asked)}
        return self._predicted[asked]

    def _predict(self, prompt_tokens: float, hint_tokens: float | None, service: str) -> Length:
        kind, features = _features(prompt_tokens, hint_tokens)
        law = self._laws[kind]
        centre, spread = law.expect(features, service)
        z = np.interp(self._shares, law.cdf, _EDGES)
        points = np.exp(np.minimum(np.maximum(centre + spread * z, 0.0), MAX_LOG_TOKENS))
        return Length(centre, spread, points, float(points.sum()) / len(points))

    def learn(self, prompt_tokens: float, hint_tokens: float | None, output_tokens: float, service: str = "") -> None:
        """Account for a complete answer."""
        self._predicted.clear()
        kind, features = _features(prompt_tokens, hint_tokens)
        self._laws[kind].learn(features, float(np.log(max(output_tokens, 1.0))), service)
        self.shapes[kind] = self._laws[kind].cdf

    def possible(
        self, prompt_tokens: float, hint_tokens: float | None, service: str = ""
    ) -> tuple[FloatArray, FloatArray]:
        """Return what an answer may be: lengths, shape (bins,), and their shares."""
        kind, features = _features(prompt_tokens, hint_tokens)
        law = self._laws[kind]
        centre, spread = law.expect(features, service)
        return np.exp(np.clip(centre + spread * _MIDDLES, 0.0, MAX_LOG_TOKENS)), np.diff(law.cdf)

    def learn_ended(
        self, prompt_tokens: float, hint_tokens: float | None, shares: FloatArray, service: str = ""
    ) -> None:
        """Account for an answer that was ended, of which `shares` is known: of the lengths of `possible`."""
        self._predicted.clear()
        kind, features = _features(prompt_tokens, hint_tokens)
        self._laws[kind].learn_ended(features, shares, service)
        self.shapes[kind] = self._laws[kind].cdf

    def export_state(self) -> list[dict[str, Any] | None]:
        """Return both laws as plain numbers; None of one that has seen nothing."""
        return [law.export_state() if law.weight > PRIOR_COUNT else None for law in self._laws]

    def import_better(self, state: Sequence[Mapping[str, Any] | None], learned_s: float = 0.0) -> None:
        """Restore what `export_state` returned, of each law if it is better known than the present one.

        Args:
            state: of both laws.
            learned_s: Unix time of the latest outcome in it.

        Raises:
            ValueError: the numbers cannot have been learned.
        """
        restored = [law.restored(one, learned_s) if one else law for law, one in zip(self._laws, state, strict=True)]
        laws = [_choose_better(*pair) for pair in zip(self._laws, restored, strict=True)]
        self._laws = (laws[0], laws[1])
        self._predicted.clear()
        self.shapes = np.stack([law.cdf for law in self._laws])


def find_quantile(share: float, centre: float, spread: float, shape: FloatArray) -> float:
    """Return the length that this share of answers does not reach, of which z has a shape as in `shapes`."""
    z = float(np.interp(share, shape, _EDGES))
    return float(np.exp(min(max(centre + spread * z, 0.0), MAX_LOG_TOKENS)))


def find_share(tokens: float, centre: float, spread: float, shape: FloatArray) -> float:
    """Return the share of answers that are no longer than this: the inverse of `find_quantile`."""
    return float(np.interp((np.log(max(tokens, 1.0)) - centre) / spread, _EDGES, shape))


def _features(prompt_tokens: float, hint_tokens: float | None) -> tuple[int, FloatArray]:
    log_prompt = np.log(max(prompt_tokens, 1.0) / 1000.0)
    if hint_tokens is None:
        return 0, np.array([1.0, log_prompt])
    return 1, np.array([1.0, log_prompt, np.log(max(hint_tokens, 1.0) / 100.0)])


class _Law:
    """One regression in logarithms with a counted shape of its residuals."""

    def __init__(self, prior: Sequence[float], spread: float) -> None:
        self._prior: FloatArray = np.asarray(prior, dtype=np.float64)
        self._prior_precision = np.diag([2.0, 8.0, 8.0][: len(self._prior)])
        self._gram = self._prior_precision.copy()
        self._moment: FloatArray = self._prior_precision @ self._prior
        self.coefficients: FloatArray = self._prior.copy()
        self.weight = PRIOR_COUNT
        self.learned_s = -np.inf
        self._squares = PRIOR_COUNT * spread**2
        self._counts = _normal_counts() * PRIOR_COUNT
        self.spread = spread
        self._services = ServiceOffsets()
        self.cdf = self._count_up()

    def expect(self, features: FloatArray, service: str) -> tuple[float, float]:
        """Return the median of ln L, and the spread around it."""
        offset, spread = self._services.find(service, self.spread)
        return _clip(float(self.coefficients @ features) + offset), max(spread, MIN_SPREAD)

    def learn(self, features: FloatArray, log_tokens: float, service: str) -> None:
        centre, spread = self.expect(features, service)
        shares = np.zeros(len(_MIDDLES))
        shares[_bin((log_tokens - centre) / spread)] = 1.0
        error = _clip(log_tokens - float(self.coefficients @ features))
        self._add(features, shares, service, (error, error**2))

    def learn_ended(self, features: FloatArray, shares: FloatArray, service: str) -> None:
        centre, spread = self.expect(features, service)
        errors = centre + spread * _MIDDLES - float(self.coefficients @ features)
        self._add(features, shares, service, (_clip(float(shares @ errors)), float(shares @ errors**2)))

    @property
    def _memory(self) -> float:
        return min(1.0 - FADE / self.weight, MEMORY)

    def _add(self, features: FloatArray, shares: FloatArray, service: str, moments: tuple[float, float]) -> None:
        """Add an answer with the mean and the square of its ln L - w'x, both as expected."""
        error, square = moments[0], min(moments[1], MAX_LOG_TOKENS**2)
        offset, _ = self._services.find(service, self.spread)
        memory, log_tokens = self._memory, float(self.coefficients @ features) + error - offset
        self._counts = self._counts * memory + shares
        self.weight = self.weight * memory + 1.0
        self._squares = self._squares * memory + square
        self._gram = self._gram * memory + features[:, None] * features
        self._moment = self._moment * memory + features * log_tokens
        self._services.add(service, error, square)
        self._solve()

    def _solve(self) -> None:
        precision = self._gram + RIDGE * self._prior_precision
        moment = self._moment + RIDGE * (self._prior_precision @ self._prior)
        self.coefficients = np.asarray(np.linalg.solve(precision, moment), dtype=np.float64)
        self.spread = max(float(np.sqrt(self._squares / self.weight)), MIN_SPREAD)
        self.cdf = self._count_up()

    def export_state(self) -> dict[str, Any]:
        return {
            "gram": self._gram.ravel().tolist(),
            "moment": self._moment.tolist(),
            "scale": [self.weight, self._squares],
            # Counts are of some tens at least, and most of what is stored.
            "counts": np.round(self._counts, 4).tolist(),
            "services": self._services.export_state(),
        }

    def restored(self, state: Mapping[str, Any], learned_s: float) -> "_Law":
        law = _Law(self._prior.tolist(), self.spread)
        law.learned_s = learned_s
        size = len(self._prior)
        gram, moment, scale, counts = (np.asarray(state[key], float) for key in ("gram", "moment", "scale", "counts"))
        fits = gram.shape == (size * size,) and moment.shape == (size,) and scale.shape == (2,)
        if not fits or counts.shape != self._counts.shape or not np.isfinite([*gram, *moment, *scale, *counts]).all():
            raise ValueError("not the state of a law of lengths")
        law._gram, law._moment, law._counts = gram.reshape(size, size), moment, counts
        law.weight, law._squares = float(scale[0]), float(scale[1])
        law._services = restore_offsets(state.get("services", {}), MAX_LOG_TOKENS)
        law._check()
        law._solve()
        if not (np.abs(law.coefficients) <= MAX_COEFFICIENT).all():
            raise ValueError("moment is not that of possible answers")
        return law

    def _check(self) -> None:
        most = 1.001 / (1.0 - MEMORY)
        if not PRIOR_COUNT <= self.weight <= most or not 0.0 <= self._squares <= MAX_LOG_TOKENS**2 * self.weight:
            raise ValueError("scale is not that of possible answers")
        if (self._counts < 0.0).any() or not 1.0 <= self._counts.sum() <= most:
            raise ValueError("counts are not those of possible answers")
        if not np.array_equal(self._gram, self._gram.T) or not is_gram(self._gram):
            raise ValueError("gram is not a sum of squares")

    def _count_up(self) -> FloatArray:
        sums = np.zeros(len(self._counts) + 1)
        np.cumsum(self._counts, out=sums[1:])
        cdf: FloatArray = sums / sums[-1]
        return cdf


def _choose_better(present: _Law, stored: _Law) -> _Law:
    is_better = is_better_known(stored.weight, stored.learned_s, than_weight=present.weight, than_s=present.learned_s)
    return stored if is_better else present


def _clip(log_tokens: float) -> float:
    return min(max(log_tokens, -MAX_LOG_TOKENS), MAX_LOG_TOKENS)


def _bin(z: float) -> int:
    return min(max(int((z + REACH) * BINS_PER_UNIT), 0), len(_EDGES) - 2)


def _normal_counts() -> FloatArray:
    density = np.exp(-(_MIDDLES**2) / 2)
    counts: FloatArray = density / density.sum()
    return counts
