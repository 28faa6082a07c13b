"""Whether a waiting task starts, waits for room, or is refused: the policy's verdict under the task's own terms."""

from perllm.api.task import OnInfeasible
from perllm.placement.placer import Placement
from perllm.policy.problem import Verdict


def judge(placement: Placement, on_infeasible: OnInfeasible) -> Verdict:
    """Return what to do about a waiting task now.

    One that may not be refused starts wherever there is room once no node is worth waiting for, or its deadline has
    passed.
    """
    choice = placement.choice
    if choice.verdict is Verdict.START or on_infeasible is OnInfeasible.REJECT:
        return choice.verdict
    is_late = placement.job.time_left_s <= 0
    return Verdict.START if choice.arm is not None or (is_late and placement.arm is not None) else Verdict.WAIT
