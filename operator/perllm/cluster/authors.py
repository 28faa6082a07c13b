"""The admission policy about authors of tasks: only those who may create pods may create tasks.

The operator creates pods with its own rights, so without this policy a task would let its author run pods that the
author may not create. The API server evaluates the policy in every namespace, also in those that no operator serves: an
operator that serves the namespace later would pick up the task.
"""

from typing import Any

from perllm.api import names
from perllm.cluster.admission import build_policy

POLICY_NAME = "perllm-task-authors"

# An update that does not change the template cannot give its author a pod.
_BRINGS_TEMPLATE = (
    "has(object.spec.template) && (request.operation == 'CREATE' || !has(oldObject.spec.template) || "
    "object.spec.template != oldObject.spec.template)"
)
_MAY_CREATE_PODS = "authorizer.group('').resource('pods').namespace(request.namespace).check('create').allowed()"
_DENIAL = (
    "request.userInfo.username + ' may not create pods in namespace ' + request.namespace + ', and a task with a "
    "template creates pods there: let an administrator grant create on pods, for example by the ClusterRole edit'"
)


def author_policy_spec() -> dict[str, Any]:
    """Return the spec of the ValidatingAdmissionPolicy."""
    return {
        # If the API server cannot evaluate the policy, it denies the task.
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [names.GROUP],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": [names.TASK_PLURAL],
                }
            ]
        },
        "matchConditions": [{"name": "brings-a-template", "expression": _BRINGS_TEMPLATE}],
        "validations": [
            {
                "expression": _MAY_CREATE_PODS,
                "message": "the author of a task with a template must be allowed to create pods in its namespace",
                "messageExpression": _DENIAL,
                "reason": "Forbidden",
            }
        ],
    }


def build_author_policy(name: str = POLICY_NAME) -> list[dict[str, Any]]:
    """Return the policy and its binding, both with the same name."""
    return build_policy(name, author_policy_spec())
