"""What is not known yet of the law of an arm, apart from what will always scatter: the bounds that cs-ucb decides by.

Notation, for a task i and an arm a
    u(i, a)   doubt: deviation of ln(time) by what is not known of the law, which vanishes with outcomes  (Arms.doubt)
    L(i, a)   outcomes that leave such a doubt, and tasks in flight that the law will learn from          (Arms.plays)
    sigma     doubt that one outcome leaves of a law of which nothing was known
    s(i, a)   deviation of ln(time) that outcomes do not lessen: of the length of the answer, above all  (Arms.spread)
    t         plays of all arms, the sum of L
    P(i, a)   chance to be in time                                                                    (Arms.hit_chance)

Bounds
    z         delta sqrt(ln t)
    radius    z sigma / sqrt(L) = delta sigma sqrt(ln t / L), that of UCB: tasks in flight count, so that a burst does
              not pile onto one arm
    cautious  P- = chance if the time were exp(z u) times as long: what is in flight has not taught anything yet
    best      P+ = chance if it were exp(-radius) times as long
    slack     P-, the share of the favourable bound: a task that is in time even by the cautious bound may explore
    chance    P- + P- (P+ - P-)
    saving    P- radius - (1 - P-) z u: how much less energy it may take, or more, in energies of a mean task
"""

from typing import NamedTuple

import numpy as np

from perllm.policy.problem import Arms, FloatArray

SIGMA = 0.15
"""The laws give outcomes this relative noise."""

LOGISTIC = 1.702
"""The logistic function of 1.702 x is within 0.01 of the normal distribution function of x."""

LEAST_CHANCE = 1e-9


class ConfidenceBounds(NamedTuple):
    """Bounds by arm, shape (n,): of the chance to be in time, and of the energy, in energies of a mean task."""

    chance: FloatArray
    saving: FloatArray


def find_bounds(arms: Arms, width: float) -> ConfidenceBounds:
    """Return the bounds of every arm; linear in their number.

    Args:
        arms: the arms.
        width: delta; 0 takes what is learned for true.
    """
    reach = width * np.sqrt(np.log(max(float(arms.plays.sum()), 1.0)))
    radius = reach * SIGMA / np.sqrt(np.maximum(arms.plays, SIGMA**2))
    caution = reach * arms.doubt
    odds_against = 1.0 / np.maximum(arms.hit_chance, LEAST_CHANCE) - 1.0
    per_log = LOGISTIC / np.sqrt(arms.spread**2 + arms.doubt**2)
    cautious = 1.0 / (1.0 + odds_against * np.exp(per_log * caution))
    best = 1.0 / (1.0 + odds_against * np.exp(-per_log * radius))
    return ConfidenceBounds(cautious + cautious * (best - cautious), cautious * radius - (1.0 - cautious) * caution)
