"""How many pods wait for kube-scheduler, by what it has said about them."""

from typing import Any

from perllm.cluster.client import Object
from perllm.cluster.pod import Pod, read_other_pod
from perllm.extender.unbound_pods import PATIENCE_S, SchedulerAnswer, UnboundPods

CREATED_S = 1_600_000_000.0
CREATED = "2020-09-13T12:26:40Z"


def pod_object(name: str = "p", *, said: str = "", node: str = "", **metadata: Any) -> Object:
    """Return a pod; `said` is the reason that its condition PodScheduled gives for having no node."""
    condition = {"type": "PodScheduled", "status": "True" if node else "False", "reason": said}
    return {
        "metadata": {"name": name, "namespace": "lab", "uid": f"uid-{name}", "creationTimestamp": CREATED, **metadata},
        "spec": {"schedulerName": "perllm", "containers": [{"name": "llm"}], **({"nodeName": node} if node else {})},
        "status": {"phase": "Pending", "conditions": [condition] if said or node else []},
    }


def read(item: Object) -> Pod:
    pod = read_other_pod(item)
    assert pod is not None
    return pod


def count(*items: Object, age_s: float = 1.0) -> dict[str, int]:
    unbound = UnboundPods(lambda: CREATED_S + age_s)
    for item in items:
        unbound.note(None, read(item))
    return {answer: unbound.count(answer) for answer in SchedulerAnswer if unbound.count(answer)}


def test_a_new_pod_awaits_an_answer_which_is_missing_after_a_minute() -> None:
    assert count(pod_object()) == {"Awaited": 1}
    assert count(pod_object(), age_s=PATIENCE_S) == {"Missing": 1}


def test_what_kube_scheduler_has_said_counts_however_long_ago_it_was() -> None:
    reasons = ("Unschedulable", "SchedulerError", "SchedulingGated")

    said = count(*(pod_object(reason, said=reason) for reason in reasons), age_s=3600.0)

    assert said == dict.fromkeys(reasons, 1)


def test_a_reason_that_is_not_known_makes_no_label_of_its_own() -> None:
    assert count(pod_object("a", said="New"), pod_object("b", said="Newer")) == {"Other": 2}


def test_a_pod_that_has_a_node_or_is_being_deleted_waits_for_nothing() -> None:
    assert count(pod_object(node="n"), pod_object(deletionTimestamp=CREATED), age_s=PATIENCE_S) == {}


def test_a_pod_counts_until_it_has_a_node_or_is_gone() -> None:
    unbound = UnboundPods(lambda: CREATED_S)
    first, second, bound = read(pod_object("a")), read(pod_object("b")), read(pod_object("a", node="n"))

    unbound.note(None, first)
    unbound.note(None, second)
    assert unbound.count(SchedulerAnswer.AWAITED) == 2
    unbound.note(first, bound)
    assert unbound.count(SchedulerAnswer.AWAITED) == 1
    unbound.note(second, None)
    assert unbound.count(SchedulerAnswer.AWAITED) == 0
