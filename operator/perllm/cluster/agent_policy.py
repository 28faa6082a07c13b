"""The admission policies that confine the agent of a node, in what it writes, to that node.

All agents have the same account, and RBAC cannot distinguish them. But the token of a pod names the node that the pod
runs on, and the API server verifies that claim. The policies apply to the agents' account and to no other. They see no
reads: an agent can read all tasks of the namespaces that it serves.
"""

from typing import Any

from perllm.api import names
from perllm.api.task_status import RunsAs, TaskPhase, TaskStatus
from perllm.cluster.admission import build_policy
from perllm.cluster.client import ApiError

_REPORTS = "-agent-reports"
REPORT_POLICY_NAME = f"perllm{_REPORTS}"
OBJECT_POLICY_NAME = "perllm-agent-objects"

AGENT_FIELDS = frozenset({"run", "result"})
"""Fields of a task's status that an agent may write."""

_NODE_CLAIM = "authentication.kubernetes.io/node-name"
_NODE = {"name": "node", "expression": f"request.userInfo.?extra[?'{_NODE_CLAIM}'][?0].orValue('')"}
_NODE_IS_KNOWN = {
    "expression": "variables.node != ''",
    "message": "the token of an agent must be bound to a pod that runs on a node",
    "reason": "Forbidden",
}
_IS_NO_ANSWER = f"request.resource.resource != '{names.TASK_ANSWER_PLURAL}'"
_OWNER = "object.metadata.ownerReferences[0]"
_FINAL_PHASES = sorted(phase.value for phase in TaskPhase if phase.is_final)
# The API server itself keeps the spec and the identity of an object whose status is changed.
_KEPT_METADATA = ("labels", "annotations", "finalizers", "ownerReferences")


def report_policy_spec(user: str) -> dict[str, Any]:
    """Return the spec of the policy about what agents that authenticate as `user` report about tasks.

    Of a task that runs as a request on its own node, an agent may write the run and the result of the current attempt,
    once, until the task has ended.
    """
    resources = [_rule(names.GROUP, ["UPDATE"], f"{names.TASK_PLURAL}/status")]
    return _policy_spec(
        user,
        resources,
        _is_placed_here(),
        _is_open(),
        _is_current(),
        _is_first(),
        _names_its_answer(),
        _keeps_the_rest(),
    )


def object_policy_spec(user: str) -> dict[str, Any]:
    """Return the spec of the policy about the objects of agents: that of their node, their Lease, and answers.

    The name of an answer says of which attempt at which task it is, and which node gave it. Admission does not see that
    task here, but it does where the status of the task names the answer: only the answer of its own node to the current
    attempt. So what an agent creates for a task of another node is never an answer to it.
    """
    return _policy_spec(
        user,
        [
            _rule(
                names.GROUP,
                ["CREATE", "UPDATE"],
                names.NODE_SERVER_PLURAL,
                f"{names.NODE_SERVER_PLURAL}/status",
                names.TASK_ANSWER_PLURAL,
            ),
            _rule("coordination.k8s.io", ["CREATE", "UPDATE"], "leases"),
        ],
        _belongs_to_a_task(),
        _forbid_unless(
            f"object.metadata.name == (request.resource.resource == 'leases' ? '{names.AGENT_LEASE_PREFIX}' : "
            f"{_IS_NO_ANSWER} ? '' : {_OWNER}.uid + '-' + string(object.attempt) + '.') + variables.node",
            "'the agent of node ' + variables.node + ' may not write the ' + request.resource.resource + ' of others'",
            "an agent may write only the object, the Lease and the answers of its own node",
        ),
    )


def build_agent_policies(
    user: str, report_name: str = REPORT_POLICY_NAME, object_name: str = OBJECT_POLICY_NAME
) -> list[dict[str, Any]]:
    """Return both policies, each with its binding of the same name."""
    return [
        *build_policy(report_name, report_policy_spec(user)),
        *build_policy(object_name, object_policy_spec(user)),
    ]


def is_denied_report(error: ApiError) -> bool:
    """Whether the policy about reports denied one, of any release: it would be denied again."""
    return error.status == 403 and f"{_REPORTS}'" in error.message


def _is_placed_here() -> dict[str, Any]:
    is_request = f"oldObject.?status.?runsAs.orValue('') == '{RunsAs.REQUEST}'"
    return _forbid_unless(
        f"{is_request} && oldObject.?status.?nodeName.orValue('') == variables.node",
        "'the agent of node ' + variables.node + ' may not report about a task that does not run there as a request'",
        "an agent may report only about tasks that run on its own node as a request",
    )


def _is_open() -> dict[str, Any]:
    return _forbid_unless(
        f"!(oldObject.?status.?phase.orValue('') in {_FINAL_PHASES})",
        "'the task has ended already: ' + oldObject.status.phase",
        "an agent may not report about a task that has ended",
    )


def _is_current() -> dict[str, Any]:
    return _forbid_unless(
        "object.?status.?run.?attempt.orValue(0) == oldObject.?status.?attempts.orValue(-1)",
        "'the report is not about the current attempt, ' + string(oldObject.?status.?attempts.orValue(0))",
        "an agent may report only about the current attempt",
    )


def _is_first() -> dict[str, Any]:
    # An agent that has not seen the answer to its patch sends it again.
    is_same = " && ".join(f"object.status.?{field} == oldObject.status.?{field}" for field in sorted(AGENT_FIELDS))
    return _forbid_unless(
        f"oldObject.?status.?run.?attempt.orValue(0) != object.?status.?run.?attempt.orValue(0) || ({is_same})",
        "'attempt ' + string(oldObject.?status.?attempts.orValue(0)) + ' has a result already'",
        "an attempt has one result, which an agent may not change",
    )


def _belongs_to_a_task() -> dict[str, Any]:
    owners = "object.metadata.?ownerReferences.orValue([])"
    return {
        "expression": f"{_IS_NO_ANSWER} || ({owners}.size() == 1 && {_OWNER}.kind == '{names.TASK_KIND}')",
        "message": "an answer must be owned by its task and nothing else",
        "reason": "Forbidden",
    }


def _names_its_answer() -> dict[str, Any]:
    name = "string(object.metadata.uid) + '-' + string(oldObject.?status.?attempts.orValue(0)) + '.' + variables.node"
    return _forbid_unless(
        f"object.status.?result.?answerName.orValue('') in ['', {name}]",
        f"'the answer to the current attempt is called ' + {name}",
        "an agent may name only the answer of its own node to the current attempt",
    )


def _keeps_the_rest() -> dict[str, Any]:
    # Generated, so that a field that is added to the status is protected as well.
    fields = [field.alias or name for name, field in TaskStatus.model_fields.items()]
    kept = [f"status.?{field}" for field in fields if field not in AGENT_FIELDS]
    kept += [f"metadata.?{field}" for field in _KEPT_METADATA]
    return {
        "expression": " && ".join(f"object.{part} == oldObject.{part}" for part in kept),
        "message": f"an agent may change nothing in a task but status.{' and status.'.join(sorted(AGENT_FIELDS))}",
        "reason": "Forbidden",
    }


def _policy_spec(user: str, resources: list[dict[str, Any]], *validations: dict[str, Any]) -> dict[str, Any]:
    return {
        # If the API server cannot evaluate the policy, it denies the request.
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": resources},
        "matchConditions": [{"name": "is-an-agent", "expression": f"request.userInfo.username == '{user}'"}],
        "variables": [_NODE],
        "validations": [_NODE_IS_KNOWN, *validations],
    }


def _rule(group: str, operations: list[str], *resources: str) -> dict[str, Any]:
    return {"apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": list(resources)}


def _forbid_unless(expression: str, denial: str, message: str) -> dict[str, Any]:
    """Return a validation; the message is what the API server says if it cannot evaluate the denial."""
    return {"expression": expression, "message": message, "messageExpression": denial, "reason": "Forbidden"}
