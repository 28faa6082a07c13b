"""Which decision bound a pod: remembered for pods that this process bound, read from the decision record of others.

Any client that may write to pods may write a record. It is believed only if it is about this task on this node, with a
time and figures that are possible.
"""

from collections import OrderedDict
from dataclasses import replace

from perllm.cluster.pod import Pod
from perllm.controller.task import Task
from perllm.placement.decision import Decision, RecordError, read_record
from perllm.placement.request import PlacementRequest

MAX_REMEMBERED = 16384
"""Records of pods in flight; forgotten with their pods, or, beyond this number, the oldest first."""

CLOCK_SLACK_S = 300.0
"""How much the clocks of the API server and the operator may differ."""

ROUNDING_S = 2.0


class Decisions:
    """Remembers the records of the pods that this process has bound.

    A pod has one for each node that it was to be bound to: a binding whose answer is lost may have been carried out,
    and kube-scheduler tries another node.
    """

    def __init__(self) -> None:
        self._records: OrderedDict[str, dict[str, str]] = OrderedDict()

    def note_bound(self, pod_uid: str, node: str, record: str) -> None:
        """Note that a pod is about to be bound to a node with a record."""
        self._records.setdefault(pod_uid, {})[node] = record
        if len(self._records) > MAX_REMEMBERED:
            self._records.popitem(last=False)

    def has_bound(self, pod: Pod) -> bool:
        """Whether this process has bound a pod to the node that it is on."""
        return pod.node in self._records.get(pod.uid, {})

    def forget(self, pod_uid: str) -> None:
        """Forget a pod that is gone."""
        self._records.pop(pod_uid, None)

    def restore(self, pod: Pod, before: Pod | None) -> Pod:
        """Return the pod with the record that it was bound with, even if it has been changed since."""
        record = self._records.get(pod.uid, {}).get(pod.node or "")
        if record is None and before is not None and (before.uid, before.node) == (pod.uid, pod.node):
            record = before.decision_record
        return pod if record in (None, pod.decision_record) else replace(pod, decision_record=record)


def read_decision(task: Task, pod: Pod) -> Decision | None:
    """Return the decision that bound a pod of a task; None if it has no record that can be believed."""
    if pod.decision_record is None or pod.node is None or task.spec is None:
        return None
    request, created_s = task.to_request(), task.received_s if pod.created_s is None else pod.created_s
    decision = read_own_record(pod.decision_record, pod.node, request, created_s)
    if decision is None or decision.inference.is_served != pod.is_served:
        return None
    return decision if task.spec.prompt_tokens in (None, decision.inference.prompt_tokens) else None


def read_own_record(record: str, node: str, request: PlacementRequest, created_s: float) -> Decision | None:
    """Return the decision in a record if it was made for this request and this node, and can be believed.

    Args:
        record: the decision record.
        node: the node that the pod is on.
        request: what was asked of placement.
        created_s: Unix time at which the pod was created.
    """
    try:
        decision = read_record(record)
    except RecordError:
        return None
    inference = decision.inference
    is_about_it = (decision.task_id, decision.node, inference.model) == (request.task_id, node, request.model)
    was_then = created_s - CLOCK_SLACK_S <= decision.decided_s
    foresaw_deadline = abs(decision.decided_s + inference.time_left_s - request.due_s) <= ROUNDING_S
    is_own = is_about_it and was_then and foresaw_deadline and inference.hint_tokens == request.output_tokens
    return decision if is_own else None
