"""What ends of pods tell of their nodes, and who is told."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from perllm.api.node_profile import CircuitState, CircuitStatus
from perllm.cluster.pod import Pod, PodPhase
from perllm.cluster.pod_ends import AGENT_LOST
from perllm.metrics import OperatorMetrics
from perllm.nodes.node_health import NodeHealth, find_avoided, find_fault
from perllm.placement.circuit import NodeFault
from perllm.placement.circuits import PAUSE, TRIP
from unit.controller.samples import bound, failed, refused, running, succeeded, waiting
from unit.placement.cluster_of import make_node
from unit.scheduling.schedulers import make_scheduler

SERVED = replace(running(), is_served=True)


class TestFaults:
    @pytest.mark.parametrize(
        ("before", "pod", "fault"),
        [
            (bound(), refused(), NodeFault.REFUSED),
            (running(), failed(), NodeFault.FAILED),
            (running(), succeeded(), None),
            (bound(), running(), None),
            (bound(), refused(is_deleting=True, was_deleted=True), None),
            (bound(), refused(is_disrupted=True), None),
            (bound(), replace(refused(), reason="Evicted"), None),
            (bound(), replace(refused(), reason="SysctlForbidden"), None),
            (bound(), replace(refused(), reason="SupplementalGroupsPolicyNotSupported"), None),
            (running(), replace(refused(), started_s=1003.0), None),
            (running(), failed(is_deleting=True, was_deleted=True), None),
            (running(), failed(is_disrupted=True), None),
            (SERVED, replace(refused(), is_served=True, reason="ServerUnavailable"), NodeFault.REFUSED),
            (SERVED, replace(refused(), is_served=True, reason=AGENT_LOST), None),
        ],
        ids=[
            "refused",
            "failed",
            "succeeded",
            "began",
            "deleted before it ran",
            "preempted before it ran",
            "evicted before it ran",
            "refused for its own spec",
            "refused for a policy of its own spec that the node does not support",
            "lost while it ran",
            "deleted while it ran",
            "preempted while it ran",
            "not accepted by its server",
            "lost with its agent, whose Lease says when it is back",
        ],
    )
    def test_of_a_node_are_what_nothing_else_explains(self, before: Pod, pod: Pod, fault: NodeFault | None) -> None:
        assert find_fault(before, pod) is fault


def test_the_nodes_of_bad_ends_are_avoided() -> None:
    pods = [
        failed(1, node="a"),
        refused(2),
        bound(3, node="c", is_deleting=True, was_deleted=True),
        succeeded(4, node="d", is_deleting=True, was_deleted=True),
        running(5, node="e"),
        waiting(6, phase=PodPhase.FAILED),
    ]
    assert find_avoided(pods) == {"a", "n", "c"}


class Ward:
    """The health of nodes n and m, and what was said of it."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        made = make_scheduler(make_node("n"), make_node("m"), now_s=lambda: self.now_s)
        self.circuits = made.parts.circuits
        self.registry = CollectorRegistry()
        self.shown: list[CircuitStatus] = []
        self.health = NodeHealth(
            made.scheduler,
            self.circuits,
            OperatorMetrics(self.registry),
            show=lambda _, status: self.shown.append(status),
            now_s=lambda: self.now_s,
            unix_now=lambda: self.now_s + 500.0,
        )
        self.scheduler = made.scheduler

    def see(self, make: Callable[..., Pod], *tasks: str) -> None:
        for name in tasks:
            pod = replace(make(), task_uid=name, task_key=f"lab/{name}")
            self.health.see(bound(), pod, "m")

    @property
    def metric(self) -> float | None:
        return self.registry.get_sample_value("perllm_circuits_open", {"node": "n"})


TASKS = [f"t{number}" for number in range(TRIP)]


def test_a_circuit_that_opens_is_told_to_everyone(caplog: pytest.LogCaptureFixture) -> None:
    ward = Ward()
    with caplog.at_level(logging.INFO):
        ward.see(refused, *TASKS, "another")
    assert [record.getMessage() for record in caplog.records] == [
        "node n receives no tasks of namespace lab for now: refused OutOfcpu"
    ]
    (status,) = ward.shown
    assert (status.state, status.reason, status.namespaces, status.models) == (
        CircuitState.OPEN,
        "OutOfcpu",
        ("lab",),
        (),
    )
    assert status.since.timestamp() == 1500.0
    assert ward.metric == 1


def test_tasks_that_wait_are_looked_at_again_once_a_node_may_be_tried(caplog: pytest.LogCaptureFixture) -> None:
    ward = Ward()
    ward.see(refused, *TASKS)
    ward.now_s += PAUSE.first_s
    ward.health.tend()
    assert ward.shown[-1].state == CircuitState.HALF_OPEN
    with caplog.at_level(logging.INFO):
        ward.see(running, "probe")
    assert (ward.shown[-1].state, ward.metric) == (CircuitState.CLOSED, 0)
    assert caplog.records[-1].getMessage() == "node n receives tasks of namespace lab again"
    assert ward.shown[-1].since.timestamp() == 1500.0 + PAUSE.first_s


def test_what_ended_before_the_operator_began_tells_nothing() -> None:
    ward = Ward()
    for name in TASKS:
        ward.health.see(None, replace(refused(), task_uid=name), "m")
        ward.health.see(refused(), replace(refused(), task_uid=name), "m")
    assert ward.shown == []


def test_a_node_that_is_gone_leaves_no_series() -> None:
    ward = Ward()
    ward.see(refused, *TASKS)
    ward.scheduler.remove_node("n")
    ward.health.forget("n")
    ward.health.forget("never there")
    assert ward.metric is None
    assert [status.state for status in ward.shown] == [CircuitState.OPEN, CircuitState.CLOSED]
    assert ward.circuits.of("n") == []
