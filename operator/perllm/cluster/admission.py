"""Admission policies as the API server stores them."""

from typing import Any

_API_VERSION = "admissionregistration.k8s.io/v1"


def build_policy(name: str, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a ValidatingAdmissionPolicy and its binding, both with the same name."""
    return [
        {
            "apiVersion": _API_VERSION,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": spec,
        },
        {
            "apiVersion": _API_VERSION,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]
