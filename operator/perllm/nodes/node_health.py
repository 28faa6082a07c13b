"""What the ends of pods tell of their nodes: which evidence reaches the circuits, and who is told of their changes."""

import logging
from collections.abc import Callable, Iterable

from perllm.api.node_profile import CircuitState, CircuitStatus
from perllm.cluster.pod import Pod, PodPhase
from perllm.cluster.pod_ends import STOPPED, is_lost, is_own_failure, is_refusal
from perllm.cluster.times import to_time
from perllm.metrics import OperatorMetrics
from perllm.placement.circuit import Attempt, Circuit, CircuitChange, NodeFault
from perllm.placement.circuits import Circuits
from perllm.scheduling.scheduler import Scheduler
from perllm.text import clean_line

log = logging.getLogger(__name__)

OF_THE_POD = frozenset(
    {
        "AppArmor",
        "InitContainerRestartPolicyForbidden",
        "NodeAffinity",
        "PodFeatureUnsupported",
        "PodLevelResourcesNotSupported",
        "PodOSNotSupported",
        "PodOSSelectorNodeLabelDoesNotMatch",
        "SupplementalGroupsPolicyNotSupported",
        "SysctlForbidden",
    }
)
"""Reasons for which a kubelet refuses a pod because of what is in its spec."""

MAX_REASON = 200


class NodeHealth:
    """Follows the circuits of nodes.

    Args:
        scheduler: keeps the circuits.
        circuits: as they are.
        metrics: count the circuits that are not closed.
        show: called with a node and the new state of its circuits.
        now_s: monotonic clock of the circuits.
        unix_now: wall clock.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        circuits: Circuits,
        metrics: OperatorMetrics,
        *,
        show: Callable[[str, CircuitStatus], None],
        now_s: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._circuits = circuits
        self._metrics = metrics
        self._show = show
        self._now_s = now_s
        self._unix_now = unix_now
        self._shown: set[str] = set()

    def see(self, before: Pod | None, pod: Pod, model: str) -> None:
        """Record what a change of a task's pod says about its node; a pod seen for the first time says nothing."""
        if before is None or before.is_finished or pod.node is None:
            return
        attempt = Attempt(pod.task_uid, pod.task_key.partition("/")[0], model, pod.node, pod.retry_after_s)
        kind = find_fault(before, pod)
        if kind is NodeFault.REFUSED:
            self._report(self._scheduler.note_refused(attempt, _describe(pod)))
        elif kind is NodeFault.FAILED:
            self._report(self._scheduler.note_failed(attempt, _describe(pod)))
        elif pod.phase is PodPhase.SUCCEEDED:
            self._report(self._scheduler.note_succeeded(attempt))
        elif pod.phase is PodPhase.RUNNING and before.phase is not PodPhase.RUNNING:
            self._report(self._scheduler.note_began(attempt))

    def tend(self) -> None:
        """Half-open the circuits whose pause has passed."""
        if self._shown:
            self._report(self._scheduler.tend_circuits())

    def forget(self, node: str) -> None:
        """Publish that the circuits of a node that is gone, or was replaced under its name, are forgotten."""
        self._metrics.fleet.circuits.remove(node)
        if node in self._shown:
            self.show(node)

    def show(self, node: str) -> None:
        """Publish the current state of a node's circuits."""
        circuits = self._circuits.of(node)
        if not circuits:
            self._shown.discard(node)
            self._show(node, CircuitStatus(state=CircuitState.CLOSED, since=to_time(round(self._unix_now()))))
            return
        self._shown.add(node)
        is_open = any(circuit.state is CircuitState.OPEN for circuit in circuits)
        status = CircuitStatus(
            state=CircuitState.OPEN if is_open else CircuitState.HALF_OPEN,
            reason=circuits[0].reason,
            since=to_time(round(self._unix_now() - self._now_s() + min(circuit.since_s for circuit in circuits))),
            models=_unless_all(circuit.model for circuit in circuits),
            namespaces=_unless_all(circuit.namespace for circuit in circuits),
        )
        self._show(node, status)

    def _report(self, changes: list[CircuitChange]) -> None:
        for change in changes:
            _announce(change)
        for node in {change.node for change in changes}:
            self._metrics.fleet.circuits.labels(node).set(len(self._circuits.of(node)))
            self.show(node)


def find_fault(before: Pod, pod: Pod) -> NodeFault | None:
    """Return what speaks against the node of a pod that has just failed; None where it did not, or for other causes."""
    if pod.phase is not PodPhase.FAILED or is_own_failure(pod):
        return None
    if not is_lost(pod):
        return None if is_refusal(pod) else NodeFault.FAILED
    is_stopped = pod.was_deleted or pod.is_disrupted or pod.reason in STOPPED
    has_run = (before.phase is PodPhase.RUNNING or pod.started_s is not None) and not pod.is_served
    return None if is_stopped or has_run or pod.reason in OF_THE_POD else NodeFault.REFUSED


def find_avoided(pods: Iterable[Pod]) -> frozenset[str]:
    """Return the nodes that refused, lost or failed a pod of a task, or where one is being deleted."""
    return frozenset(
        pod.node
        for pod in pods
        if pod.node and (pod.phase is PodPhase.FAILED or (pod.is_deleting and not pod.is_finished))
    )


def _describe(pod: Pod) -> str:
    code = f"exit code {pod.exit_code}" if pod.exit_code is not None else ""
    return clean_line(": ".join(filter(None, (code, pod.reason, pod.message))), MAX_REASON)


def _announce(change: CircuitChange) -> None:
    circuit = change.circuit
    if change.state is CircuitState.OPEN:
        log.warning(
            "node %s receives no tasks%s for now: %s %s", change.node, _scope(circuit), circuit.kind, circuit.reason
        )
    elif change.state is CircuitState.CLOSED:
        log.info("node %s receives tasks%s again", change.node, _scope(circuit))


def _scope(circuit: Circuit) -> str:
    model = f" of model {circuit.model}" if circuit.model else ""
    return model + (f" of namespace {circuit.namespace}" if circuit.namespace else "")


def _unless_all(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names, or none where one of them stands for all."""
    known = sorted(set(names))
    return () if "" in known else tuple(known)
