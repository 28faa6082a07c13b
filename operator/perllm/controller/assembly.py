"""Assembles the controller, and what runs next to it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from perllm.api.node_profile import CircuitStatus
from perllm.cluster.client import Client
from perllm.cluster.writes import WriteQueue
from perllm.controller.announcer import Announcer
from perllm.controller.clocks import Clocks
from perllm.controller.controller import Controller
from perllm.controller.decisions import Decisions
from perllm.controller.dispatcher import Dispatcher
from perllm.controller.drift import DriftMonitor
from perllm.controller.history import History
from perllm.controller.outcome_learner import OutcomeLearner
from perllm.controller.pod_accounts import PodAccounts
from perllm.controller.pod_keeper import PodKeeper
from perllm.controller.pod_releases import PodReleases
from perllm.controller.prompt_ratios import PromptRatios
from perllm.controller.reconciler import Reconciler
from perllm.controller.retirement import Retirement
from perllm.controller.runner_pods import RunnerPods
from perllm.controller.settings import ControllerSettings
from perllm.controller.status_writer import StatusWriter
from perllm.controller.stray_pods import StrayPods
from perllm.controller.suspensions import Suspensions
from perllm.controller.tracking import Tracking
from perllm.costs.service import Charge, charge_nothing
from perllm.energy.settlement import Settlement
from perllm.guard import Guard
from perllm.metrics import OperatorMetrics
from perllm.nodes.node_health import NodeHealth
from perllm.placement.claims import ClaimSizes
from perllm.placement.counterfactual import Savings
from perllm.placement.savings import SavedUnit
from perllm.scheduling.denial import DenialCause
from perllm.scheduling.scheduler import Parts, Scheduler


@dataclass(frozen=True, slots=True)
class ControllerContext:
    """What the controller works with.

    Attributes:
        client: the API server.
        writes: the queue of writes.
        settlement: measures energy.
        announcer: announces what happens.
        metrics: count it.
        guard: contains failures about single objects.
        now_s: monotonic clock.
        unix_now: wall clock.
        show_circuit: called with a node and the state of its circuits.
        wake: set whenever there may be something to decide.
        has_tasks: whether all tasks of a namespace are known at the moment.
        has_pods: whether the pods of a namespace were listed.
        sees_pods: whether the pods of tasks can be watched at the moment.
        is_current: whether tasks and pods of a namespace are known as they are, not as they were before an outage.
        pod_paths: API paths of the pods that the operator may read.
        is_annotated: whether a uid is that of an annotated pod, which belongs to no task but is in the ledger.
        suspensions: know which tasks may not run for now.
        charge: returns what the energy of a task cost, by namespace, node, Unix time and joules.
    """

    client: Client
    writes: WriteQueue
    settlement: Settlement
    announcer: Announcer
    metrics: OperatorMetrics
    guard: Guard
    now_s: Callable[[], float]
    unix_now: Callable[[], float]
    show_circuit: Callable[[str, CircuitStatus], None]
    wake: asyncio.Event
    has_tasks: Callable[[str], bool]
    has_pods: Callable[[str], bool]
    sees_pods: Callable[[], bool] = lambda: True
    is_current: Callable[[str], bool] = lambda _: True
    pod_paths: Sequence[str] = ()
    is_annotated: Callable[[str], bool] = lambda _: False
    suspensions: Suspensions = field(default_factory=Suspensions)
    charge: Charge = charge_nothing


class TaskControl:
    """The controller, which has no tasks yet, and what runs next to it. Each part is built from those above it.

    Args:
        scheduler: decides about tasks.
        parts: of the scheduler.
        context: what the controller works with.
        settings: of the controller.

    Attributes:
        decisions: remember which decision bound a pod.
        claims: the devices that pods ask for by claims.
        clocks: judge the times that nodes report.
        node_health: follows the circuits of nodes.
        savings: accounts for what tasks and annotated pods saved.
        stray_pods: removes pods that lost their label unseen.
        writer: writes statuses.
        dispatcher: carries out decisions.
        releases: release pods whose ends are recorded.
        retirement: moves tasks that are over to the history.
        controller: receives tasks and pods.
        drift: compares the ledger with the pods.
    """

    def __init__(
        self, scheduler: Scheduler, parts: Parts, context: ControllerContext, settings: ControllerSettings
    ) -> None:
        self._scheduler, self._parts, self._context, self._settings = scheduler, parts, context, settings
        self._tracking = Tracking()
        self.decisions = Decisions()
        self.claims = ClaimSizes(settings.devices)
        self.clocks = Clocks(parts.fleet.nodes.__contains__, context.metrics.fleet.show_clock_skew)
        self.node_health = self._build_node_health()
        self.savings = Savings(is_shadow=False)
        self._outcomes = self._build_outcome_learner()
        self._accounts = self._build_pod_accounts()
        self._pods = PodKeeper(
            context.client,
            context.writes,
            scheduler_name=settings.scheduler_name,
            runners=RunnerPods(settings.runner, parts.fleet.nodes),
        )
        self.stray_pods = StrayPods(context.client, self._pods, context.pod_paths)
        self.writer = StatusWriter(context.client, context.writes, on_written=self._outcomes.note_written)
        self._reconciler = self._build_reconciler()
        self.dispatcher = self._build_dispatcher()
        self._history = History(self._pods, settings.history, context.unix_now)
        self.releases = self._build_pod_releases()
        self.retirement = self._build_retirement()
        self.controller = self._build_controller()
        self.drift = self._build_drift_monitor()
        self._show_metrics()

    def _build_node_health(self) -> NodeHealth:
        context = self._context
        return NodeHealth(
            self._scheduler,
            self._parts.circuits,
            context.metrics,
            show=context.show_circuit,
            now_s=context.now_s,
            unix_now=context.unix_now,
        )

    def _build_outcome_learner(self) -> OutcomeLearner:
        context, parts = self._context, self._parts
        return OutcomeLearner(
            self._tracking,
            self._scheduler,
            parts.fleet,
            context.metrics,
            savings=self.savings,
            revisions=parts.learner.revisions,
            guard=context.guard,
            unix_now=context.unix_now,
        )

    def _build_pod_accounts(self) -> PodAccounts:
        context = self._context
        return PodAccounts(
            self._scheduler,
            context.settlement,
            self.node_health,
            self._outcomes,
            context.metrics,
            patience=self._settings.patience,
            node_of=self._parts.fleet.nodes.get,
            unix_now=context.unix_now,
        )

    def _build_reconciler(self) -> Reconciler:
        context = self._context
        return Reconciler(
            self._tracking,
            self._scheduler,
            accounts=self._accounts,
            settlement=context.settlement,
            decisions=self.decisions,
            suspensions=context.suspensions,
            pods=self._pods,
            writer=self.writer,
            announcer=context.announcer,
            guard=context.guard,
            patience=self._settings.patience,
            has_pods=context.has_pods,
            is_current=context.is_current,
            unix_now=context.unix_now,
            charge=context.charge,
        )

    def _build_dispatcher(self) -> Dispatcher:
        context, settings = self._context, self._settings
        return Dispatcher(
            self._scheduler,
            context.wake,
            tracking=self._tracking,
            reconciler=self._reconciler,
            pods=self._pods,
            stray_pods=self.stray_pods,
            announcer=context.announcer,
            admission=settings.admission,
            savings=self.savings,
            guard=context.guard,
            named_nodes=settings.named_nodes,
            now_s=context.now_s,
        )

    def _build_pod_releases(self) -> PodReleases:
        context = self._context
        return PodReleases(
            self._tracking,
            self.writer,
            self._outcomes,
            self._pods,
            has_tasks=context.has_tasks,
            guard=context.guard,
            unix_now=context.unix_now,
        )

    def _build_retirement(self) -> Retirement:
        context = self._context
        return Retirement(
            self._tracking,
            self._history,
            self._reconciler,
            self.writer,
            self._outcomes,
            has_pods=context.has_pods,
            guard=context.guard,
            unix_now=context.unix_now,
        )

    def _build_controller(self) -> Controller:
        context, settings = self._context, self._settings
        return Controller(
            self._tracking,
            self._scheduler,
            reconciler=self._reconciler,
            accounts=self._accounts,
            outcomes=self._outcomes,
            releases=self.releases,
            history=self._history,
            learner=self._parts.learner,
            writer=self.writer,
            clocks=self.clocks,
            decisions=self.decisions,
            suspensions=context.suspensions,
            guard=context.guard,
            unix_now=context.unix_now,
            gpu_resources=settings.gpu_resources,
            claims=self.claims,
            ratios=PromptRatios(),
            has_runners=bool(settings.runner.server_url),
            has_pods=context.has_pods,
            bill_label=settings.bill_label,
        )

    def _build_drift_monitor(self) -> DriftMonitor:
        context, parts = self._context, self._parts
        return DriftMonitor(
            self._tracking,
            self._accounts,
            parts.ledger,
            parts.fleet,
            self._scheduler,
            is_annotated=context.is_annotated,
            sees_pods=context.sees_pods,
            metrics=context.metrics,
            now_s=context.now_s,
        )

    def _show_metrics(self) -> None:
        """Have the metrics read what is saved, waiting and in flight whenever they are scraped."""
        metrics, scheduler = self._context.metrics, self._scheduler
        for unit in SavedUnit:
            metrics.savings.show(unit, partial(self.savings.of, unit))
        metrics.queue.waiting.set_function(lambda: scheduler.waiting)
        metrics.queue.waiting_for_room.set_function(lambda: scheduler.waiting_for_room)
        metrics.queue.deferred.set_function(lambda: scheduler.deferred)
        for cause in DenialCause:
            metrics.queue.postponed.labels(cause).set_function(partial(scheduler.postponed, cause))
        metrics.queue.in_flight.set_function(lambda: len(self._parts.ledger))
