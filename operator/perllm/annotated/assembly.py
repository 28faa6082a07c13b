"""Assembles what follows annotated pods."""

from perllm.annotated.outcomes import PodOutcomes
from perllm.annotated.pods import AnnotatedPods
from perllm.annotated.report import PodReport
from perllm.cluster.events import EventRecorder
from perllm.config import Config
from perllm.controller.assembly import ControllerContext, TaskControl
from perllm.controller.reviews import Reviews
from perllm.energy.bill import BillMetrics
from perllm.extender.retries import Retries
from perllm.scheduling.scheduler import Parts, Scheduler


def build_annotated_pods(
    scheduler: Scheduler,
    parts: Parts,
    context: ControllerContext,
    control: TaskControl,
    *,
    events: EventRecorder,
    bill: BillMetrics,
    retries: Retries,
    config: Config,
) -> AnnotatedPods:
    """Return what follows annotated pods, before it has seen any; it shares what the controller works with."""
    report = PodReport(
        events,
        context.metrics,
        context.announcer.endings,
        bill,
        context.client,
        context.writes,
        annotates=config.annotated_pods.annotate_results,
        charge=context.charge,
    )
    return AnnotatedPods(
        scheduler,
        parts.fleet,
        parts.learner,
        settlement=context.settlement,
        outcomes=PodOutcomes(scheduler, context.metrics, control.savings, reviews=Reviews(scheduler, context.guard)),
        node_health=control.node_health,
        clocks=control.clocks,
        decisions=control.decisions,
        retries=retries,
        report=report,
        guard=context.guard,
        unix_now=context.unix_now,
        gpu_resources=config.nodes.resources,
        claims=control.claims,
        namespaces=config.namespaces,
    )
