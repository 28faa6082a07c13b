"""Metrics for reports: where tasks ran, predicted and actual outcomes, and why nodes and deadlines were missed."""

from bisect import bisect_right
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter

from perllm.api.task_status import Observation, TaskPhase, TaskStatus
from perllm.controller.summary import find_reason
from perllm.label_values import LabelValues

MAX_NODES = 1000
MAX_REASONS = 50

LATE = "Late"

PROMISES = (0.5, 0.8, 0.9, 0.95, 0.99)
"""Chances at which one range of promises ends and the next one begins."""


class EndMetrics:
    """How tasks ended, in the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.promises = Counter(
            "perllm_promises",
            "Ended tasks, by the chance to be in time that was predicted when they were placed, in percent, and by "
            "whether they were.",
            ["chance", "met"],
            registry=registry,
        )
        self.node_tasks = Counter(
            "perllm_node_tasks",
            "Ended tasks, by their node and whether they met the deadline.",
            ["node", "tier", "gpu", "met"],
            registry=registry,
        )
        self.node_seconds = Counter(
            "perllm_node_task_seconds",
            "Seconds of the tasks that succeeded on a node: waiting, transfer of the payload, inference, and the rest.",
            ["node", "part"],
            registry=registry,
        )
        self.transmission = Counter(
            "perllm_node_transmission_joules",
            "Estimated energy of moving payloads to a node.",
            ["node"],
            registry=registry,
        )
        self.missed = Counter(
            "perllm_deadlines_missed",
            "Ended tasks that did not meet their deadline, by phase and reason; Late if they succeeded.",
            ["phase", "reason"],
            registry=registry,
        )
        self.exclusions = Counter(
            "perllm_nodes_excluded",
            "Nodes that were excluded when a task was placed, by reason.",
            ["reason"],
            registry=registry,
        )
        self._nodes = LabelValues(MAX_NODES)
        self._reasons = LabelValues(MAX_REASONS)

    def note_placement(self, excluded: Mapping[str, int]) -> None:
        """Count the nodes that were excluded for a task, by reason."""
        for reason, nodes in excluded.items():
            self.exclusions.labels(reason).inc(nodes)

    def note_transmission(self, node: str, energy_j: float) -> None:
        """Count the energy of moving a payload to a node."""
        self.transmission.labels(self._nodes.bound(node)).inc(max(energy_j, 0.0))

    def note_end(self, status: TaskStatus) -> None:
        """Count a task that reached its final phase."""
        met, decision = str(status.deadline_met is True).lower(), status.decision
        if decision is not None and decision.hit_chance is not None:
            self.promises.labels(name_promise(decision.hit_chance), met).inc()
        if status.node_name is not None:
            node, tier = self._nodes.bound(status.node_name), status.tier.value if status.tier else "none"
            self.node_tasks.labels(node, tier, status.gpu_type or "none", met).inc()
            for part, seconds in _divide_latency(status.observed).items():
                self.node_seconds.labels(node, part).inc(seconds)
        if status.deadline_met is not True:
            reason = LATE if status.phase is TaskPhase.SUCCEEDED else find_reason(status)
            self.missed.labels(status.phase.value, self._reasons.bound(reason)).inc()


def name_promise(chance: float) -> str:
    """Return the range of a chance, in percent, such as 90-95."""
    number = bisect_right(PROMISES, chance)
    ends = (0.0, *PROMISES, 1.0)
    return f"{100 * ends[number]:.0f}-{100 * ends[number + 1]:.0f}"


def _divide_latency(observed: Observation | None) -> dict[str, float]:
    """Return the parts of a latency in seconds; they add up to it."""
    if observed is None or observed.latency is None:
        return {}
    known = {
        "queue": observed.queue or 0.0,
        "transfer": observed.transfer or 0.0,
        "inference": observed.inference or 0.0,
    }
    return {**known, "other": max(observed.latency - sum(known.values()), 0.0)}
