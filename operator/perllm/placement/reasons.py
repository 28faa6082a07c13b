"""Why a task goes to a node: what was compared, and by which part of it the next best node lost.

Made only for what people are shown, since words take longer than the choice itself.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from perllm.policy.problem import Choice

LEAST = 0.0005
"""Parts that would be shown as 0.000 are left out."""


def explain_arm(names: Sequence[str], choice: Choice, arm: int, open_arm: int | None) -> str:
    """Return why a task goes to an arm.

    Args:
        names: the node of every arm.
        choice: what the policy chose.
        arm: where the task goes.
        open_arm: where it goes if it has to start now.
    """
    figures = _account(names, choice, arm)
    if arm == choice.arm:
        candidates = f"{choice.candidates} candidate{'' if choice.candidates == 1 else 's'}"
        return f"{choice.reason}, of {candidates}{figures}"
    if arm == open_arm:
        return f"best node with room when the pod had to be placed{figures}; {choice.reason}"
    preferred = "" if open_arm is None else f", {names[open_arm]}"
    return f"kube-scheduler preferred this node to the policy's choice{preferred}"


def _account(names: Sequence[str], choice: Choice, arm: int) -> str:
    """Return the parts of an arm's score, and of its distance to the next best; empty where there are none."""
    score = float(choice.scores[arm])
    if not choice.terms or not np.isfinite(score):
        return ""
    values = [(term.name, term.sign * float(term.values[arm])) for term in choice.terms]
    parts = " ".join(
        f"{'-' if value < 0 else '+'} {abs(value):.3f} {name}" for name, value in values if abs(value) >= LEAST
    )
    account = f": {score:.3f} = {parts.removeprefix('+ ') or '0'}"
    second = _find_second(choice, arm)
    if second is None:
        return account
    lost = _name_differences(
        (term.name, term.sign * float(term.values[second] - term.values[arm])) for term in choice.terms
    )
    return f"{account}; next is {names[second]} with {choice.scores[second]:.3f}{lost}"


def _find_second(choice: Choice, arm: int) -> int | None:
    """Return the best arm of no higher score: higher ones were excluded, or have no room."""
    others = np.where(choice.scores <= choice.scores[arm], choice.scores, -np.inf)
    others[arm] = -np.inf
    second = int(others.argmax())
    return second if np.isfinite(others[second]) else None


def _name_differences(differences: Iterable[tuple[str, float]]) -> str:
    """Return the parts by which the second arm scores less or more, the greatest first."""
    known = sorted((one for one in differences if abs(one[1]) >= LEAST), key=lambda one: -abs(one[1]))
    words = ", ".join(f"{difference:+.3f} by {name}" for name, difference in known)
    return f" ({words})" if words else ""
