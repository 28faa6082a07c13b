"""Tasks and pods for the tests of the controller: a task created at 1000 s with a deadline of 60 s, and its pods."""

import dataclasses
from typing import Any

from perllm.api.report import RunReport
from perllm.api.task import TaskSpec
from perllm.cluster.pod import Pod, PodPhase, Timing
from perllm.controller.task import Task
from perllm.kueue.workload import QUEUE_LABEL
from perllm.placement.decision import Decision
from unit.placement.records import make_decision

CREATED_S = 1000.0
TEMPLATE = {"spec": {"containers": [{"name": "llm", "image": "llm"}]}}
SPEC = {"model": "m", "promptTokens": 1000, "outputTokens": 100, "deadline": "60s", "template": TEMPLATE}


def make_spec(**fields: Any) -> TaskSpec:
    return TaskSpec.model_validate({**SPEC, **fields})


def make_task(
    name: str = "t", *, namespace: str = "lab", uid: str | None = None, received_s: float = CREATED_S, **spec: Any
) -> Task:
    key = f"{namespace}/{name}"
    return Task(key, namespace, name, uid or f"uid-{name}", 1, make_spec(**spec), "", received_s)


def task_object(
    name: str = "t", *, uid: str | None = None, status: Any = None, queue: str | None = None, **spec: Any
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "lab",
            "uid": uid or f"uid-{name}",
            "generation": 1,
            "labels": {} if queue is None else {QUEUE_LABEL: queue},
            "creationTimestamp": "1970-01-01T00:16:40Z",
        },
        "spec": {key: value for key, value in {**SPEC, **spec}.items() if value is not None},
        "status": status or {},
    }


def make_own_decision(**fields: Any) -> Decision:
    """Return the decision that placed the task that `make_task` returns on node n."""
    return make_decision(**{"time_left_s": 58.0, "hint_tokens": 100.0, **fields})


WAITING = Pod(
    key="lab/t-1",
    name="t-1",
    uid="uid-t-1",
    task_uid="uid-t",
    task_key="lab/t",
    attempt=1,
    node=None,
    phase=PodPhase.PENDING,
    is_deleting=False,
    gone_by_s=None,
    is_retained=True,
    is_disrupted=False,
    was_deleted=False,
    reason="",
    message="",
    exit_code=None,
    culprit="",
    wait_reason="",
    wait_message="",
    created_s=CREATED_S,
    idle_since_s=None,
    reported_s=None,
    started_s=None,
    finished_s=None,
    timing=Timing.NODE,
    linger_s=None,
    report=None,
    decision_record=None,
)


def waiting(attempt: int = 1, **fields: Any) -> Pod:
    """Return a pod that waits for kube-scheduler."""
    name = f"t-{attempt}"
    values = {"key": f"lab/{name}", "name": name, "uid": f"uid-{name}", "attempt": attempt, **fields}
    return dataclasses.replace(WAITING, **values)


def bound(attempt: int = 1, **fields: Any) -> Pod:
    """Return a pod that was placed on node n at 1002 s."""
    return waiting(attempt, **{"node": "n", "decision_record": make_own_decision().to_record(), **fields})


def running(attempt: int = 1, **fields: Any) -> Pod:
    """Return a pod that runs since 1003 s."""
    return bound(attempt, **{"phase": PodPhase.RUNNING, "started_s": 1003.0, **fields})


def succeeded(
    attempt: int = 1, *, finished_s: float = 1010.0, report: dict[str, Any] | None = None, **fields: Any
) -> Pod:
    return running(
        attempt,
        phase=PodPhase.SUCCEEDED,
        exit_code=0,
        finished_s=finished_s,
        report=RunReport.model_validate(report) if report else None,
        **fields,
    )


def failed(attempt: int = 1, **fields: Any) -> Pod:
    """Return a pod whose container failed by itself."""
    return running(
        attempt, **{"phase": PodPhase.FAILED, "exit_code": 3, "reason": "Error", "finished_s": 1005.0, **fields}
    )


def refused(attempt: int = 1, **fields: Any) -> Pod:
    """Return a pod that its node did not admit."""
    return bound(attempt, **{"phase": PodPhase.FAILED, "reason": "OutOfcpu", **fields})
