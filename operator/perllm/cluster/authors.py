"""Who may create tasks: whoever may create their pods.

The operator creates pods with rights of its own, so without this policy a task would be a way to pods that its author
may not create. The API server asks when a task is created, in every namespace: a task waits for whoever comes to serve
its namespace later.
"""

from typing import Any

from perllm.api import names

POLICY_NAME = "perllm-task-authors"
_ADMISSION_API = "admissionregistration.k8s.io/v1"

# An update that leaves the template alone brings nobody a pod that its author might not have.
_BRINGS_TEMPLATE = (
    "has(object.spec.template) && (request.operation == 'CREATE' || !has(oldObject.spec.template) || "
    "object.spec.template != oldObject.spec.template)"
)
_MAY_CREATE_PODS = "authorizer.group('').resource('pods').namespace(request.namespace).check('create').allowed()"
_REFUSAL = (
    "request.userInfo.username + ' may not create pods in namespace ' + request.namespace + ', and a task with a "
    "template creates pods there: let an administrator grant create on pods, for example by the ClusterRole edit'"
)


def author_policy_spec() -> dict[str, Any]:
    """Return the spec of the ValidatingAdmissionPolicy."""
    return {
        # While the API server cannot judge, nobody gets a pod.
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
                "messageExpression": _REFUSAL,
                "reason": "Forbidden",
            }
        ],
    }


def build_author_policy(name: str = POLICY_NAME) -> list[dict[str, Any]]:
    """Return the policy and its binding, both of one name."""
    return [
        {
            "apiVersion": _ADMISSION_API,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": author_policy_spec(),
        },
        {
            "apiVersion": _ADMISSION_API,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]
