"""The admission policy about the operator's right to patch the status of pods, by which it changes their metadata.

The finalizer that retains a pod is removed through the pod's status. In the same way pods are labelled to be retried,
and annotated with what they took. So the operator needs no right to change specs. The right to pods/status alone would
allow it to report any phase of any pod, and to change all labels. The policy applies to the operator's account and to
no other.
"""

from collections.abc import Iterable
from typing import Any

from perllm.api import names
from perllm.cluster.admission import build_policy

POLICY_NAME = "perllm-pod-releases"

_FINALIZERS, _OLD_FINALIZERS = (f"{one}.metadata.?finalizers.orValue([])" for one in ("object", "oldObject"))
_RELEASES = (
    f"{_FINALIZERS} == {_OLD_FINALIZERS} || "
    f"{_FINALIZERS} == {_OLD_FINALIZERS}.filter(one, one != '{names.OUTCOME_FINALIZER}')"
)
# The API server itself keeps the spec and the identity of a pod whose status is changed.
_KEPT = ("?status", "metadata.?ownerReferences", "metadata.?generateName")


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
            _require(_RELEASES, f"the operator may remove the finalizer {names.OUTCOME_FINALIZER}, and no other"),
            _require(
                _keep_entries("labels", (names.RETRY_LABEL,)),
                f"the operator may change the label {names.RETRY_LABEL}, and no other",
            ),
            _require(
                _keep_entries("annotations", names.RESULT_ANNOTATIONS),
                f"the operator may change the annotations {', '.join(names.RESULT_ANNOTATIONS)}, and no other",
            ),
            _require(
                " && ".join(f"object.{part} == oldObject.{part}" for part in _KEPT),
                "the operator may change nothing in a pod but its finalizers, labels and annotations",
            ),
        ],
    }


def build_release_policy(user: str, name: str = POLICY_NAME) -> list[dict[str, Any]]:
    """Return the policy and its binding, both with the same name."""
    return build_policy(name, release_policy_spec(user))


def _require(expression: str, message: str) -> dict[str, str]:
    return {"expression": expression, "message": message, "reason": "Forbidden"}


def _keep_entries(field: str, free: Iterable[str]) -> str:
    """Return the expression that all entries of a map of the metadata are kept, but those of some keys."""
    old, new = (f"{one}.metadata.?{field}.orValue({{}})" for one in ("oldObject", "object"))
    keys = ", ".join(f"'{key}'" for key in free)
    return (
        f"{new}.all(key, key in [{keys}] || key in {old}) && "
        f"{old}.all(key, key in [{keys}] || (key in {new} && {new}[key] == {old}[key]))"
    )
