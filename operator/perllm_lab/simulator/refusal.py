"""When the simulator refuses tasks: by the policy's own verdict, so that policies are compared by their own rules.

The operator asks for a chance on top of that, which its users set; here it would hide what a policy makes of deadlines
that are tight.
"""

from perllm.placement.placer import Placement
from perllm.policy.problem import Verdict

PROBE_SHARE = 0.05


class Refusal:
    """Carries out a policy's verdicts; of the harmless tasks that it refuses a share is started to learn."""

    def __init__(self) -> None:
        self._due = 0.0

    def judge(self, placement: Placement) -> Verdict:
        """Return what to do about a waiting task now; a refusal is final."""
        choice = placement.choice
        if choice.verdict is not Verdict.REJECT or not choice.is_harmless or placement.inference.time_left_s <= 0:
            return choice.verdict
        self._due += PROBE_SHARE
        if self._due < 1.0:
            return Verdict.REJECT
        self._due -= 1.0
        return Verdict.START
