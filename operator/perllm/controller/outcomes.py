"""What there is to learn from a task whose energy is settled."""

from perllm.api.task_status import TaskStatus
from perllm.cluster.pod import Pod
from perllm.controller.task import Task
from perllm.learning.outcome import Outcome
from perllm.placement.decision import Decision
from perllm.placement.flight import Residence
from perllm.placement.hindsight import CompletedRun, judge_run


def build_outcome(
    task: Task, status: TaskStatus, pod: Pod, decision: Decision, residence: Residence | None
) -> Outcome | None:
    """Return the outcome of a settled task; None if it did not succeed, or took time for more than its tokens."""
    observed = status.observed
    if observed is None or observed.latency is None or _has_waste(status):
        return None
    energy_j = observed.energy_joules
    run = CompletedRun(
        prompt_tokens=(pod.report.prompt_tokens if pod.report else None) or decision.inference.prompt_tokens,
        output_tokens=observed.tokens,
        bound_s=decision.decided_s,
        finished_s=task.received_s + observed.latency,
        transfer_s=observed.transfer or 0.0,
        latency_s=observed.latency,
        deadline_s=task.valid_spec.deadline_s,
        inference_energy_j=None
        if energy_j is None
        else max(energy_j - decision.forecast.energy.transmission_energy_j, 0.0),
        residence=residence,
        load_s=status.run.load_time if status.run else None,
        prompts=pod.prompts,
        is_sequential=pod.is_sequential,
    )
    return judge_run(decision, run)


def _has_waste(status: TaskStatus) -> bool:
    """Whether requests failed or were repeated: they took time and energy, and their tokens are not counted."""
    prompts = status.run.prompts if status.run else None
    return prompts is not None and bool(prompts.failed or prompts.repeated)
