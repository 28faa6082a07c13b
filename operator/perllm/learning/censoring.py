"""What a run that was ended at its deadline says: its answer was long, or its node was slow, or both.

Notation
    c       seconds after which it was ended
    L_k     possible lengths of its answer, f_k their shares by the law of lengths
    T_k     seconds that the law of time expects for L_k, s_k the standard deviation of the logarithm around it: what
            scatters and what is not yet known of the law together
    e       ln(time it would have taken / T_k), logistic with that deviation
    r_k     ln(c / T_k) in units of the logistic distribution

All that was observed is e > ln(c / T_k) for the true length, so by Bayes' rule and the logistic distribution's mean
above a threshold,

    share        f_k P(e > ln(c / T_k)), normalised
    excess       E(e | e > ln(c / T_k)) = unit (r + ln(1 + exp(-r)) (1 + exp(r)))
    information  the derivative of excess by ln(c / T_k) = exp(r) ln(1 + exp(-r)): near 1 where only a slow node
                 explains the run, near 0 where it was bound to take longer anyway

Complete runs enter the laws as they are, ended ones through these expectations (expectation maximisation; the
information is the weight of a censored observation in Newton's method). Both together are the likelihood of everything
that was seen, so that a node that completes nothing but short answers does not look fast, nor do answers look long on
account of a slow node.
"""

from dataclasses import dataclass

import numpy as np

from perllm.policy.problem import FloatArray

LOGISTIC = 1.702
"""The logistic function of 1.702 x is within 0.01 of the normal distribution function of x."""

MAX_EXPONENT = 30.0
"""Further from the threshold the limits of the expressions above are exact to a millionth of a millionth."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is likely of an ended run, by possible length of its answer; arrays have shape (k,).

    Attributes:
        shares: probability of each length, given that the run did not complete.
        excess: expected ln(time it would have taken / time that the law expects), at each length.
        information: what it says of the law of time at each length, in complete runs.
    """

    shares: FloatArray
    excess: FloatArray
    information: FloatArray


def explain(shares: FloatArray, expected_s: FloatArray, deviation: FloatArray, ended_s: float) -> Explanation:
    """Explain a run that was ended after `ended_s` seconds.

    Args:
        shares: of the possible lengths, shape (k,), before anything was seen of the run.
        expected_s: seconds that the run was to be expected to take at each length, shape (k,), positive.
        deviation: standard deviation of ln(seconds) around that, shape (k,), positive.
        ended_s: when it was ended, positive.
    """
    unit = deviation / LOGISTIC
    r = np.clip(np.log(ended_s / expected_s) / unit, -MAX_EXPONENT, MAX_EXPONENT)
    beyond = np.log1p(np.exp(-r))
    posterior = shares / (1.0 + np.exp(r))
    return Explanation(
        shares=posterior / posterior.sum(),
        excess=unit * (r + beyond * (1.0 + np.exp(r))),
        information=np.exp(r) * beyond,
    )
