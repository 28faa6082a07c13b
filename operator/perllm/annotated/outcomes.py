"""Learns from annotated pods that have succeeded, and accounts what they saved."""

from perllm.annotated.annotated_pod import AnnotatedPod
from perllm.annotated.completed import read_run
from perllm.api.task_status import Observation
from perllm.controller.evidence import find_fault
from perllm.controller.reviews import Reviews
from perllm.energy.attribution import Attribution
from perllm.metrics import OperatorMetrics
from perllm.placement.counterfactual import Savings
from perllm.placement.decision import Decision
from perllm.placement.flight import Residence
from perllm.placement.hindsight import CompletedRun, judge_run
from perllm.placement.request import PlacementRequest
from perllm.scheduling.scheduler import Scheduler


class PodOutcomes:
    """Learns from each outcome once: the learner recognises those that it has learned before.

    Args:
        scheduler: learns.
        metrics: count what is learned.
        savings: compare what pods took with the counterfactual.
        reviews: make the comparisons.
    """

    def __init__(self, scheduler: Scheduler, metrics: OperatorMetrics, savings: Savings, *, reviews: Reviews) -> None:
        self._scheduler = scheduler
        self._reviews = reviews
        self._metrics = metrics
        self._savings = savings

    def learn(
        self,
        annotated: AnnotatedPod,
        request: PlacementRequest,
        decision: Decision,
        energy: Attribution,
        residence: Residence | None,
    ) -> tuple[CompletedRun, bool]:
        """Learn from a pod if its times are those of its work.

        Return what was observed of it, and whether that was learned, now and not before.
        """
        run = read_run(annotated.pod, request, decision, energy, residence)
        fault = find_fault(run.finished_s, Observation.of_report(annotated.pod.report), annotated.pod, decision)
        if fault is not None:
            self._metrics.learning.discarded.labels(fault).inc()
        is_to_learn = fault is None and not annotated.pod.was_restarted
        return run, is_to_learn and self._learn(annotated.pod.key, run, request, decision)

    def _learn(self, name: str, run: CompletedRun, request: PlacementRequest, decision: Decision) -> bool:
        outcome = judge_run(decision, run)
        endings = self._reviews.review(name, decision, due_s=request.due_s, outcome=outcome)
        reward = self._scheduler.learn(outcome, decision.gpu_type)
        if reward is None:
            return False
        self._metrics.learning.learned.inc()
        self._metrics.learning.reward.observe(reward)
        self._savings.note(*endings)
        return True
