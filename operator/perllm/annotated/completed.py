"""What was observed of the work in a pod that has succeeded."""

from perllm.cluster.pod import Pod
from perllm.energy.attribution import Attribution
from perllm.placement.decision import Decision
from perllm.placement.flight import Residence
from perllm.placement.hindsight import CompletedRun
from perllm.placement.request import PlacementRequest


def read_run(
    pod: Pod, request: PlacementRequest, decision: Decision, energy: Attribution, residence: Residence | None
) -> CompletedRun:
    """Return what was observed of a pod's work.

    Args:
        pod: the pod, with its end.
        request: what it asked of placement.
        decision: by which it is on its node.
        energy: its energy, with that of the transfer of its input.
        residence: what it met on its node; None if that was not observed.
    """
    report = pod.report
    transmission_j = decision.forecast.energy.transmission_energy_j
    finished_s = decision.decided_s if pod.finished_s is None else pod.finished_s
    return CompletedRun(
        prompt_tokens=(report.prompt_tokens if report else None) or request.prompt_tokens,
        output_tokens=report.output_tokens if report else None,
        bound_s=decision.decided_s,
        finished_s=finished_s,
        transfer_s=(report.transfer_seconds if report else None) or 0.0,
        latency_s=max(finished_s - (request.due_s - request.deadline_s), 0.0),
        deadline_s=request.deadline_s,
        inference_energy_j=None if energy.energy_j is None else max(energy.energy_j - transmission_j, 0.0),
        residence=residence,
        prompts=pod.prompts,
        is_sequential=pod.is_sequential,
    )
