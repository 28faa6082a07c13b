"""The operator's own metrics. Names and labels are a stable interface; no label has unbounded values."""

from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BOUNDS: tuple[Literal["low", "total", "high"], ...] = ("low", "total", "high")
_LATENCY_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
_ENERGY_BUCKETS = (10, 30, 100, 300, 1000, 3000, 10000, 30000)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_HANDLER_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)


class Interval(Protocol):
    """A sum over tasks, with an interval."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""

    @property
    def total(self) -> float:
        """The estimate."""

    @property
    def high(self) -> float:
        """Upper end of the interval."""

    @property
    def tasks(self) -> int:
        """Number of tasks."""


class TaskMetrics:
    """What became of tasks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions = Counter(
            "perllm_decisions",
            "Placed tasks, by policy, tier and whether it was exploration.",
            ["policy", "tier", "explored"],
            registry=registry,
        )
        self.finished = Counter("perllm_tasks_finished", "Tasks that ended, by phase.", ["phase"], registry=registry)
        self.deadlines = Counter(
            "perllm_deadlines",
            "Ended tasks, by tier and whether they met the deadline.",
            ["tier", "met"],
            registry=registry,
        )
        self.latency = Histogram(
            "perllm_task_latency_seconds",
            "Time from creation to completion of a task.",
            ["tier"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self.energy = Histogram(
            "perllm_task_energy_joules",
            "Measured energy of a task.",
            ["tier"],
            buckets=_ENERGY_BUCKETS,
            registry=registry,
        )
        self.energy_quality = Counter(
            "perllm_energy_measurements", "Energy measurements by quality.", ["quality"], registry=registry
        )

    def note_end(self, phase: str, tier: str, *, is_met: bool | None = None, latency_s: float | None = None) -> None:
        """Count what has ended; `is_met` and `latency_s` are None if there is no deadline, and no completion."""
        self.finished.labels(phase).inc()
        if is_met is not None:
            self.deadlines.labels(tier, str(is_met).lower()).inc()
        if latency_s is not None:
            self.latency.labels(tier).observe(latency_s)

    def note_energy(self, tier: str, quality: str, energy_j: float | None) -> None:
        """Count an energy measurement; None if the energy is unknown."""
        self.energy_quality.labels(quality).inc()
        if energy_j is not None:
            self.energy.labels(tier).observe(energy_j)


class QueueMetrics:
    """Tasks that wait, and tasks that are placed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge("perllm_tasks_waiting", "Tasks that are waiting for a pod.", registry=registry)
        self.waiting_for_room = Gauge(
            "perllm_tasks_waiting_for_room",
            "Waiting tasks that wait for nothing but room, on all nodes that may take them or on a better one.",
            registry=registry,
        )
        self.deferred = Gauge("perllm_tasks_deferred", "Waiting tasks that wait for cheaper energy.", registry=registry)
        self.postponed = Gauge(
            "perllm_tasks_postponed",
            "Waiting tasks whose pod the API server denied, by cause.",
            ["cause"],
            registry=registry,
        )
        self.unbound = Gauge(
            "perllm_pods_unbound",
            "Pods of tasks and annotated pods that have no node yet, by what kube-scheduler has said about them last; "
            "Awaited if that is nothing, Missing if it has been nothing for a minute.",
            ["answer"],
            registry=registry,
        )
        self.in_flight = Gauge("perllm_tasks_in_flight", "Tasks that are placed and have not ended.", registry=registry)
        self.ledger_drift = Gauge(
            "perllm_ledger_drift",
            "Pods in flight on which the ledger and the API server have differed for too long.",
            registry=registry,
        )
        self.ledger_repairs = Counter(
            "perllm_ledger_repairs",
            "Pods in flight on which the ledger differed from the API server for too long, and was repaired.",
            registry=registry,
        )


class LearningMetrics:
    """Outcomes, and what was learned from them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.learned = Counter("perllm_outcomes_learned", "Outcomes learned from.", registry=registry)
        self.discarded = Counter(
            "perllm_outcomes_refused",
            "Outcomes that were discarded because they cannot be true.",
            ["reason"],
            registry=registry,
        )
        self.reward = Histogram(
            "perllm_reward",
            "Reward of learned outcomes.",
            buckets=(-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5),
            registry=registry,
        )
        self.models_forgotten = Counter(
            "perllm_models_forgotten",
            "Models forgotten on a node because its profile was full.",
            registry=registry,
        )


class FleetMetrics:
    """The nodes, judged by their pods."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refusals = Counter("perllm_pods_refused", "Pods refused or lost by their node.", registry=registry)
        self.replaced = Counter(
            "perllm_pods_replaced",
            "Pods that fitted on none of the nodes they named, and were replaced by pods that name none.",
            registry=registry,
        )
        self.circuits = Gauge(
            "perllm_circuits_open",
            "Circuits of a node that are not closed: it receives no tasks, or none of some models or namespaces.",
            ["node"],
            registry=registry,
        )
        self.agents = Gauge(
            "perllm_agents",
            "Agents of nodes that are ready, by whether they renew their Leases.",
            ["alive"],
            registry=registry,
        )
        self.clock_skew = Gauge(
            "perllm_node_clock_skew_seconds",
            "Seconds by which a node's clock is ahead of the operator's, judged by its pods; 0 within one second.",
            ["node"],
            registry=registry,
        )

    def show_clock_skew(self, node: str, ahead_s: float | None) -> None:
        """Set by how much a node's clock is ahead; None if the node is gone."""
        if ahead_s is None:
            self.clock_skew.remove(node)
        else:
            self.clock_skew.labels(node).set(ahead_s)


class SavingsMetrics:
    """What was saved against another scheduler."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.saved = {
            unit: Gauge(
                f"perllm_saved_{unit}",
                f"{unit.capitalize()} saved against the plain kube-scheduler since the start, or, in shadow mode, that "
                "would have been saved: in total, and the ends of the 90 % interval.",
                ["bound"],
                registry=registry,
            )
            for unit in ("joules", "deadlines")
        }
        self.compared = Gauge(
            "perllm_compared_tasks",
            "Tasks that the savings were estimated from, by what was compared.",
            ["unit"],
            registry=registry,
        )
        self.shadowed = Counter(
            "perllm_shadowed_pods",
            "Pods of other schedulers that shadow mode compared, by PerLLM's choice: same, other, or none.",
            ["choice"],
            registry=registry,
        )

    def show(self, unit: str, read: Callable[[], Interval]) -> None:
        """Have the savings of one unit, joules or deadlines, read whenever they are scraped."""
        for bound in _BOUNDS:
            self.saved[unit].labels(bound).set_function(partial(_read_bound, read, bound))
        self.compared.labels(unit).set_function(lambda: read().tasks)


class ExtenderMetrics:
    """Calls of kube-scheduler."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "perllm_extender_seconds",
            "Time in the extender's handlers.",
            ["verb"],
            buckets=_HANDLER_BUCKETS,
            registry=registry,
        )
        self.errors = Counter(
            "perllm_extender_errors", "Extender calls that were answered with an error.", ["verb"], registry=registry
        )


class ProcessMetrics:
    """The process of the operator."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.active = Gauge("perllm_active", "1 if this replica is active, 0 if it is standby.", registry=registry)
        self.faults = Counter(
            "perllm_faults",
            "Unexpected failures, by the kind of object; work on other objects continued.",
            ["kind"],
            registry=registry,
        )
        self.loop_lag = Histogram(
            "perllm_loop_lag_seconds",
            "By how much the event loop was late.",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self.watch_restarts = Counter("perllm_watch_restarts", "Restarts of the task watch.", registry=registry)


class OperatorMetrics:
    """All metrics of the operator, in the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tasks = TaskMetrics(registry)
        self.queue = QueueMetrics(registry)
        self.learning = LearningMetrics(registry)
        self.fleet = FleetMetrics(registry)
        self.savings = SavingsMetrics(registry)
        self.extender = ExtenderMetrics(registry)
        self.process = ProcessMetrics(registry)


def _read_bound(read: Callable[[], Interval], bound: Literal["low", "total", "high"]) -> float:
    estimate = read()
    return {"low": estimate.low, "total": estimate.total, "high": estimate.high}[bound]
