"""Announces what becomes of annotated pods: log lines, events on the pod, metrics and, if configured, annotations."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

from perllm.annotated.annotated_pod import AnnotatedPod
from perllm.api import names
from perllm.api.task_status import Observation, TaskPhase, TaskStatus
from perllm.cluster.client import ApiError, Client, Object
from perllm.cluster.events import EventRecorder, Subject
from perllm.cluster.pod import Pod
from perllm.cluster.pod_ends import is_refusal
from perllm.cluster.writes import Write, WriteQueue
from perllm.controller.announcer import count_decision, describe_decision, list_decision
from perllm.controller.end_metrics import EndMetrics
from perllm.controller.explanations import explain_failure, explain_refusal
from perllm.costs.service import Charge, charge_nothing
from perllm.energy.attribution import Attribution
from perllm.energy.bill import BillMetrics
from perllm.metrics import OperatorMetrics
from perllm.placement.decision import Decision

log = logging.getLogger("perllm.decisions")

COMPLETED, MISSED, FAILED, PLACED = "Completed", "DeadlineMissed", "Failed", "Placed"
SUCCEEDED = "Succeeded"


@dataclass(frozen=True, slots=True)
class Taken:
    """What the work in a pod took.

    Attributes:
        latency_s: from creation to completion.
        deadline_s: the time allowed for that; None for any.
        energy: what it used.
    """

    latency_s: float
    deadline_s: float | None
    energy: Attribution

    @property
    def is_met(self) -> bool:
        """Whether it was complete by its deadline; true if it has none."""
        return self.deadline_s is None or self.latency_s <= self.deadline_s

    def to_annotations(self) -> dict[str, str]:
        """Return it as annotations of the pod; what is not known is left out."""
        annotations = {
            names.LATENCY_ANNOTATION: f"{self.latency_s:.3f}",
            names.ENERGY_QUALITY_ANNOTATION: self.energy.quality.value,
        }
        if self.energy.energy_j is not None:
            annotations[names.ENERGY_ANNOTATION] = f"{self.energy.energy_j:.2f}"
        if self.deadline_s is not None:
            annotations[names.DEADLINE_MET_ANNOTATION] = str(self.is_met).lower()
        return annotations


class PodReport:
    """Reports what happens to people; nothing depends on it.

    Args:
        events: are posted about the pods.
        metrics: count pods as they count tasks.
        endings: count those that succeeded in the same way.
        bill: bills pods as it bills tasks.
        client: the API server.
        writes: the queue of writes.
        annotates: whether pods are annotated with what they took.
        charge: counts what the energy of a pod cost, by namespace, node, Unix time and joules.
    """

    def __init__(
        self,
        events: EventRecorder,
        metrics: OperatorMetrics,
        endings: EndMetrics,
        bill: BillMetrics,
        client: Client,
        writes: WriteQueue,
        *,
        annotates: bool,
        charge: Charge = charge_nothing,
    ) -> None:
        self._events = events
        self._metrics = metrics
        self._endings = endings
        self._bill = bill
        self._client = client
        self._writes = writes
        self._annotates = annotates
        self._charge = charge

    def placed(self, annotated: AnnotatedPod, decision: Decision) -> None:
        """Announce a decision that was carried out."""
        pod, deadline_s = annotated.pod, annotated.deadline_s
        moment = decision.decided_s - annotated.created_s, deadline_s
        summary = describe_decision(decision, *moment)
        fields = {"event": "decision", "pod": pod.key, "uid": pod.uid, **list_decision(decision, *moment)}
        log.info("%s %s", pod.key, summary, extra=fields)
        self._events.record(_subject(pod), PLACED, summary)
        count_decision(self._metrics, decision)
        self._endings.note_placement(decision.assessment.excluded)

    def failed(self, annotated: AnnotatedPod) -> None:
        """Announce that a pod has failed."""
        pod, was_refused = annotated.pod, is_refusal(annotated.pod)
        words = explain_refusal(pod) if was_refused else explain_failure(pod)
        log.warning("%s %s", pod.key, words, extra={**_list_end(annotated), "outcome": FAILED, "detail": words})
        self._events.record(_subject(pod), FAILED, words, warning=True)
        self._metrics.tasks.note_end(FAILED, tier="none")
        self._bill.note_end(annotated.owner, FAILED, None, None)
        self._metrics.fleet.refusals.inc(was_refused)

    def completed(self, annotated: AnnotatedPod, decision: Decision, taken: Taken) -> None:
        """Announce what a pod took that has succeeded, once its energy is known or known to be missing."""
        pod = annotated.pod
        summary = _describe_end(decision, taken)
        fields = {**_list_end(annotated), "outcome": SUCCEEDED, **_list_taken(decision, taken)}
        log.log(logging.INFO if taken.is_met else logging.WARNING, "%s %s", pod.key, summary, extra=fields)
        self._events.record(_subject(pod), COMPLETED if taken.is_met else MISSED, summary, warning=not taken.is_met)
        self._count(annotated, decision, taken)
        if self._annotates:
            send = partial(self._annotate, pod, taken.to_annotations())
            self._writes.put(Write("annotations", pod.key, send))

    def _count(self, annotated: AnnotatedPod, decision: Decision, taken: Taken) -> None:
        tasks, energy, tier = self._metrics.tasks, taken.energy, decision.tier.value
        transmission_j = decision.forecast.energy.transmission_energy_j
        is_met = None if taken.deadline_s is None else taken.is_met
        status = _to_status(annotated, decision, taken)
        tasks.note_end(SUCCEEDED, tier, is_met=is_met, latency_s=taken.latency_s)
        tasks.note_energy(tier, energy.quality.value, energy.energy_j)
        self._bill.note_end(annotated.owner, SUCCEEDED, is_met, status.observed)
        self._bill.note_measurement(annotated.owner, energy.quality, transmission_j)
        self._endings.note_end(status)
        self._endings.note_transmission(decision.node, transmission_j)
        if energy.energy_j is not None:
            at_s = annotated.created_s + taken.latency_s - _find_inference_s(annotated.pod) / 2.0
            self._charge(annotated.pod.namespace, decision.node, at_s, energy.energy_j)

    async def _annotate(self, pod: Pod, annotations: dict[str, str]) -> None:
        namespace = pod.namespace
        change: Object = {"metadata": {"uid": pod.uid, "annotations": annotations}}
        try:
            await self._client.patch(f"{names.pods_path(namespace)}/{pod.name}/status", change)
        except ApiError as error:
            if error.is_unreachable:
                raise
            if error.status not in (404, 409):  # gone, or another pod by now
                log.warning("pod %s is not annotated with what it took: %s", pod.key, error)


def _subject(pod: Pod) -> Subject:
    return Subject(pod.namespace, pod.name, pod.uid, "v1", "Pod")


def _to_status(annotated: AnnotatedPod, decision: Decision, taken: Taken) -> TaskStatus:
    """Return the status of a task that would have taken the same; without a deadline nothing was promised or missed."""
    pod, created_s = annotated.pod, annotated.created_s
    queue_s = None if pod.started_s is None else max(pod.started_s - created_s, 0.0)
    return TaskStatus(
        phase=TaskPhase.SUCCEEDED,
        node_name=decision.node,
        tier=decision.tier,
        gpu_type=decision.gpu_type,
        decision=None if taken.deadline_s is None else decision.to_status(created_s),
        observed=Observation.of_report(pod.report, queue=queue_s, latency=taken.latency_s),
        deadline_met=taken.is_met,
    )


def _find_inference_s(pod: Pod) -> float:
    return (pod.report.inference_seconds if pod.report else None) or 0.0


def _describe_end(decision: Decision, taken: Taken) -> str:
    due = "" if taken.deadline_s is None else f" of {taken.deadline_s:g} s"
    verdict = "" if taken.is_met else ", TOO LATE"
    energy, forecast = taken.energy, decision.forecast
    joules = "energy not measured" if energy.energy_j is None else f"{energy.energy_j:.0f} J ({energy.quality})"
    return (
        f"took {taken.latency_s:.2f} s{due} since its creation{verdict}, and {joules}, on {decision.node}; "
        f"{forecast.times.latency_s:.2f} s since its decision and {forecast.energy.energy_j:.0f} J were predicted"
    )


def _list_end(annotated: AnnotatedPod) -> dict[str, Any]:
    pod = annotated.pod
    return {
        "event": "ended",
        "pod": pod.key,
        "uid": pod.uid,
        "model": annotated.announcement.model,
        "node": pod.node,
        "deadline_s": annotated.deadline_s,
    }


def _list_taken(decision: Decision, taken: Taken) -> dict[str, Any]:
    energy = taken.energy
    return {
        "tier": decision.tier.value,
        "gpu": decision.gpu_type,
        "policy": decision.policy,
        "deadline_met": None if taken.deadline_s is None else taken.is_met,
        "observed_latency_s": round(taken.latency_s, 3),
        "observed_energy_j": energy.energy_j,
        "energy_quality": energy.quality.value,
        "predicted_energy_j": round(decision.forecast.energy.energy_j, 2),
    }
