"""Whether what a successful run reported fits what was observed of it; an implausible report is discarded."""

from perllm.api.task_status import Observation
from perllm.cluster.pod import Pod, Timing
from perllm.learning.outcome import ImplausibleFigure
from perllm.placement.decision import Decision

MAX_WRITTEN_PER_S = 1e5
"""More tokens than any node writes in a second, with any GPUs and any batch."""

MAX_READ_PER_S = 1e7

SLACK_S = 2.0
"""How much the times of one run may contradict each other: two of them are in whole seconds."""


def find_fault(
    finished_s: float, observed: Observation, pod: Pod, decision: Decision | None
) -> ImplausibleFigure | None:
    """Return which figure of a successful run, which ended at this Unix time, is impossible; None if none is."""
    if decision is None:
        return ImplausibleFigure.DECISION
    transfer_s, inference_s = observed.transfer or 0.0, observed.inference
    run_s = finished_s - decision.decided_s
    if pod.timing is Timing.UNKNOWN or run_s <= 0.0 or transfer_s + (inference_s or 0.0) > run_s + SLACK_S:
        return ImplausibleFigure.TIME
    work_s = run_s if inference_s is None else inference_s
    is_too_fast = (observed.tokens or 0) > work_s * MAX_WRITTEN_PER_S
    if observed.tokens == 0 or is_too_fast or (observed.prompt_tokens or 0) > run_s * MAX_READ_PER_S:
        return ImplausibleFigure.TOKENS
    return None
