"""Records of a run that has ended: the report of its container, and the lab's ground truth."""

import math

from perllm.api.report import RunReport
from perllm_lab.hardware.node import Finished
from perllm_lab.hardware.scenario import NodeSpec
from perllm_lab.nodes.clock import Clock
from perllm_lab.nodes.ground_truth import PodTruth, RequestTruth
from perllm_lab.nodes.pods import BoundPod
from perllm_lab.nodes.served_request import ServedRequest


def run_report(run: Finished, clock: Clock) -> RunReport:
    """Return the report of a container about its completed run: in wall time, without energy."""
    return RunReport(
        started_at=clock.wall(run.started_s),
        finished_at=clock.wall(run.finished_s),
        transfer_seconds=run.transfer_s / clock.speed,
        inference_seconds=run.inference_s / clock.speed,
        prompt_tokens=run.job.prompt_tokens,
        output_tokens=run.job.output_tokens,
        time_to_first_token_seconds=(run.decode_s - run.finished_s + run.inference_s) / clock.speed,
    )


def pod_truth(pod: BoundPod, run: Finished, spec: NodeSpec, clock: Clock, *, outcome: str) -> PodTruth:
    """Return what only the lab knows about a run, such as its exact energy."""
    return PodTruth(
        pod=pod.name,
        namespace=pod.namespace,
        task=pod.task,
        uid=pod.uid,
        node=spec.name,
        tier=spec.tier,
        gpu=spec.gpu.product,
        outcome=outcome,
        created=pod.created,
        admitted=clock.wall(run.admitted_s).isoformat(timespec="microseconds"),
        started=clock.wall(run.started_s).isoformat(timespec="microseconds"),
        finished=clock.wall(run.finished_s).isoformat(timespec="microseconds"),
        transfer_s=_wall_seconds(run.transfer_s, clock),
        inference_s=_wall_seconds(run.inference_s, clock),
        prompt_tokens=run.job.prompt_tokens,
        output_tokens=run.job.output_tokens,
        input_bytes=run.job.input_bytes,
        energy_j=run.energy_j,
    )


def request_truth(request: ServedRequest, run: Finished, spec: NodeSpec, clock: Clock) -> RequestTruth:
    """Return what only the lab knows about a request that has ended, such as its exact energy."""
    return RequestTruth(
        request=request.request_id,
        task=request.task,
        node=spec.name,
        tier=spec.tier,
        gpu=spec.gpu.product,
        outcome=str(request.end),
        created=clock.wall(run.admitted_s).isoformat(timespec="microseconds"),
        finished=clock.wall(run.finished_s).isoformat(timespec="microseconds"),
        transfer_s=_wall_seconds(run.transfer_s, clock),
        first_token_s=_wall_seconds(run.decode_s - run.admitted_s, clock),
        inference_s=_wall_seconds(run.inference_s, clock),
        prompt_tokens=run.job.prompt_tokens,
        output_tokens=request.tokens,
        input_bytes=run.job.input_bytes,
        energy_j=run.energy_j,
    )


def _wall_seconds(simulated_s: float, clock: Clock) -> float | None:
    return None if math.isnan(simulated_s) else simulated_s / clock.speed
