"""Whether a waiting task starts, waits for room, or is refused: the policy's verdict under the task's own terms.

Of the tasks that would be refused although they cost nobody else anything a small share is started: without such probes
a policy that once thinks too ill of its nodes would refuse everything, and never learn better.
"""

from perllm.api.task import OnInfeasible
from perllm.placement.placer import Placement
from perllm.policy.problem import Verdict

PROBE_SHARE = 0.05


class Admission:
    """Judges tasks.

    Args:
        probe_share: which share of the harmless tasks that would be refused is started to learn.
    """

    def __init__(self, probe_share: float = PROBE_SHARE) -> None:
        self._probe_share = probe_share
        self._due = 0.0

    def judge(self, placement: Placement, on_infeasible: OnInfeasible) -> Verdict:
        """Return what to do about a waiting task now; a refusal is final.

        One that may not be refused starts wherever there is room once no node is worth waiting for, or its deadline has
        passed.
        """
        choice = placement.choice
        if choice.verdict is Verdict.START:
            return choice.verdict
        is_late = placement.job.time_left_s <= 0
        if on_infeasible is OnInfeasible.REJECT:
            is_refused = choice.verdict is Verdict.REFUSE
            return (
                Verdict.START
                if is_refused and choice.is_harmless and not is_late and self._probes()
                else choice.verdict
            )
        return Verdict.START if choice.arm is not None or (is_late and placement.arm is not None) else Verdict.WAIT

    def _probes(self) -> bool:
        self._due += self._probe_share
        if self._due < 1.0:
            return False
        self._due -= 1.0
        return True
