"""Assembles the controller."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from perllm.api import names
from perllm.api.node_profile import CircuitStatus
from perllm.cluster.client import Client
from perllm.cluster.devices import DeviceSelection
from perllm.cluster.pod_ends import PodPatience
from perllm.cluster.writes import WriteQueue
from perllm.config import Config
from perllm.controller.announcer import Announcer
from perllm.controller.clocks import Clocks
from perllm.controller.controller import Controller
from perllm.controller.decisions import Decisions
from perllm.controller.dispatcher import Dispatcher
from perllm.controller.drift import DriftMonitor
from perllm.controller.history import History, HistoryLimits
from perllm.controller.outcome_learner import OutcomeLearner
from perllm.controller.pod_accounts import PodAccounts
from perllm.controller.pod_keeper import PodKeeper
from perllm.controller.pod_releases import PodReleases
from perllm.controller.reconciler import Reconciler
from perllm.controller.retirement import Retirement
from perllm.controller.runner_pods import RunnerPods
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
from perllm.scheduling.admission import Admission
from perllm.scheduling.assembly import build_admission
from perllm.scheduling.denial import DenialCause
from perllm.scheduling.scheduler import Parts, Scheduler
from perllm.settings.tasks import RunnerSettings


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Settings for the life of tasks.

    Attributes:
        scheduler_name: scheduler of the pods.
        gpu_resources: resources that slots are units of.
        devices: those that are slots.
        patience: how long pods may take.
        admission: explains rejections.
        history: how long finished tasks are kept.
        runner: what runner pods have in common, and whether there are any.
        named_nodes: nodes that a pod names at most; 0 for pods that may be placed on any.
        bill_label: label of tasks by whose values the bill is divided; empty for none.
    """

    scheduler_name: str = names.SCHEDULER_NAME
    gpu_resources: tuple[str, ...] = names.GPU_RESOURCES
    devices: tuple[DeviceSelection, ...] = ()
    patience: PodPatience = field(default_factory=PodPatience)
    admission: Admission = field(default_factory=Admission)
    history: HistoryLimits = field(default_factory=HistoryLimits)
    runner: RunnerSettings = field(default_factory=RunnerSettings)
    named_nodes: int = 0
    bill_label: str = ""


def read_controller_settings(config: Config) -> ControllerSettings:
    """Return the settings of an operator's controller."""
    return ControllerSettings(
        scheduler_name=config.scheduler_name,
        gpu_resources=config.nodes.resources,
        devices=config.nodes.selections,
        patience=PodPatience(start_s=config.start_timeout_s, away_s=config.away_patience_s),
        admission=build_admission(config.admission),
        history=HistoryLimits(config.tasks.default_ttl_s, config.tasks.max_history),
        runner=config.runner,
        named_nodes=config.pods.named_nodes,
        bill_label=config.bill.label,
    )


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
        has_tasks: whether all tasks are known at the moment.
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
    has_tasks: Callable[[], bool]
    pod_paths: Sequence[str] = ()
    is_annotated: Callable[[str], bool] = lambda _: False
    suspensions: Suspensions = field(default_factory=Suspensions)
    charge: Charge = charge_nothing


@dataclass(frozen=True, slots=True)
class TaskControl:
    """The controller and what runs next to it.

    Attributes:
        controller: takes in tasks and pods.
        dispatcher: carries out decisions.
        releases: release pods whose ends are recorded.
        retirement: moves tasks that are over to the history.
        drift: compares the ledger with the pods.
        stray_pods: removes pods that lost their label unseen.
        writer: writes statuses.
        node_health: follows the circuits of nodes.
        clocks: judge the times that nodes report.
        decisions: remember which decision bound a pod.
        savings: account what tasks and annotated pods saved.
        claims: the devices that pods ask for by claims.
    """

    controller: Controller
    dispatcher: Dispatcher
    releases: PodReleases
    retirement: Retirement
    drift: DriftMonitor
    stray_pods: StrayPods
    writer: StatusWriter
    node_health: NodeHealth
    clocks: Clocks
    decisions: Decisions
    savings: Savings
    claims: ClaimSizes


def build_task_control(
    scheduler: Scheduler, parts: Parts, context: ControllerContext, settings: ControllerSettings
) -> TaskControl:
    """Return a controller without tasks."""
    tracking, metrics, guard, unix_now = Tracking(), context.metrics, context.guard, context.unix_now
    claims = ClaimSizes(settings.devices)
    clocks, decisions = Clocks(parts.fleet.nodes.__contains__, metrics.fleet.show_clock_skew), Decisions()
    node_health = NodeHealth(
        scheduler, parts.circuits, metrics, show=context.show_circuit, now_s=context.now_s, unix_now=unix_now
    )
    savings = Savings(is_shadow=False)
    for unit in SavedUnit:
        metrics.savings.show(unit, partial(savings.of, unit))
    outcomes = OutcomeLearner(
        tracking,
        scheduler,
        parts.fleet,
        metrics,
        savings=savings,
        revisions=parts.learner.revisions,
        guard=guard,
        unix_now=unix_now,
    )
    accounts = PodAccounts(
        scheduler,
        context.settlement,
        node_health,
        outcomes,
        metrics,
        patience=settings.patience,
        node_of=parts.fleet.nodes.get,
        unix_now=unix_now,
    )
    runners = RunnerPods(settings.runner, parts.fleet.nodes)
    pods = PodKeeper(context.client, context.writes, scheduler_name=settings.scheduler_name, runners=runners)
    stray_pods = StrayPods(context.client, pods, context.pod_paths)
    writer = StatusWriter(context.client, context.writes, on_written=outcomes.note_written)
    reconciler = Reconciler(
        tracking,
        scheduler,
        accounts=accounts,
        settlement=context.settlement,
        decisions=decisions,
        suspensions=context.suspensions,
        pods=pods,
        writer=writer,
        announcer=context.announcer,
        guard=guard,
        patience=settings.patience,
        unix_now=unix_now,
        charge=context.charge,
    )
    dispatcher = Dispatcher(
        scheduler,
        context.wake,
        tracking=tracking,
        reconciler=reconciler,
        pods=pods,
        stray_pods=stray_pods,
        announcer=context.announcer,
        admission=settings.admission,
        savings=savings,
        guard=guard,
        named_nodes=settings.named_nodes,
    )
    history = History(pods, settings.history, unix_now)
    retirement = Retirement(tracking, history, reconciler, writer, outcomes, guard=guard, unix_now=unix_now)
    releases = PodReleases(
        tracking,
        writer,
        outcomes,
        pods,
        has_tasks=context.has_tasks,
        guard=guard,
        unix_now=unix_now,
    )
    controller = Controller(
        tracking,
        scheduler,
        reconciler=reconciler,
        accounts=accounts,
        outcomes=outcomes,
        releases=releases,
        history=history,
        learner=parts.learner,
        writer=writer,
        clocks=clocks,
        decisions=decisions,
        suspensions=context.suspensions,
        guard=guard,
        unix_now=unix_now,
        gpu_resources=settings.gpu_resources,
        claims=claims,
        has_runners=bool(settings.runner.server_url),
        bill_label=settings.bill_label,
    )
    drift = DriftMonitor(
        tracking,
        accounts,
        parts.ledger,
        parts.fleet,
        scheduler,
        has_tasks=context.has_tasks,
        is_annotated=context.is_annotated,
        metrics=metrics,
        now_s=context.now_s,
    )
    _show_queue(scheduler, parts, metrics)
    return TaskControl(
        controller,
        dispatcher,
        releases,
        retirement,
        drift,
        stray_pods,
        writer,
        node_health,
        clocks,
        decisions,
        savings,
        claims,
    )


def _show_queue(scheduler: Scheduler, parts: Parts, metrics: OperatorMetrics) -> None:
    """Have the metrics read the numbers of waiting tasks and tasks in flight whenever they are scraped."""
    metrics.queue.waiting.set_function(lambda: scheduler.waiting)
    metrics.queue.deferred.set_function(lambda: scheduler.deferred)
    for cause in DenialCause:
        metrics.queue.postponed.labels(cause).set_function(partial(scheduler.postponed, cause))
    metrics.queue.in_flight.set_function(lambda: len(parts.ledger))
