"""The admission policy about the operator's right to patch the status of pods: it may only release them.

The finalizer that retains a pod is removed through the pod's status, so that the operator needs no right to change
specs. The right to pods/status alone would allow it to report any phase of any pod, and to change labels. The policy
applies to the operator's account and to no other.
"""

from typing import Any

from perllm.api import names
from perllm.cluster.admission import build_policy

POLICY_NAME = "perllm-pod-releases"

_RELEASES = (
    "object.metadata.?finalizers.orValue([]) == "
    f"oldObject.metadata.?finalizers.orValue([]).filter(one, one != '{names.OUTCOME_FINALIZER}')"
)
# The API server itself keeps the spec and the identity of a pod whose status is changed.
_KEPT = ("?status", "metadata.?labels", "metadata.?annotations", "metadata.?ownerReferences", "metadata.?generateName")


def release_policy_spec(user: str) -> dict[str, Any]:
    """Return the spec of the ValidatingAdmissionPolicy for an operator that authenticates as `user`."""
    return {
        # If the API server cannot evaluate the policy, it denies the patch.
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods/status"]}
            ]
        },
        "matchConditions": [{"name": "is-the-operator", "expression": f"request.userInfo.username == '{user}'"}],
        "validations": [
            {
                "expression": _RELEASES,
                "message": f"the operator may remove the finalizer {names.OUTCOME_FINALIZER}, and no other",
                "reason": "Forbidden",
            },
            {
                "expression": " && ".join(f"object.{part} == oldObject.{part}" for part in _KEPT),
                "message": "the operator may change nothing in a pod but its finalizers",
                "reason": "Forbidden",
            },
        ],
    }


def build_release_policy(user: str, name: str = POLICY_NAME) -> list[dict[str, Any]]:
    """Return the policy and its binding, both with the same name."""
    return build_policy(name, release_policy_spec(user))
